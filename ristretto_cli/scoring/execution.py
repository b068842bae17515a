"""How nets are run: the device, its threads, and which graph is made of a net."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class GraphKind(Enum):
    """Which ONNX graph computes a net; the value is the word that --graph takes."""

    FAST = "fast"  # integer kernels where they are exact, trims that change nothing left out
    PLAIN = "plain"  # one node per primitive, as `export --format onnx` writes it


@dataclass(frozen=True)
class Execution:
    """How a net is run.

    gpu: the number of the CUDA device, None for the CPU. threads: how many the CPU may use, 0 for one per core.
    """

    gpu: int | None = None
    threads: int = 0
    graph: GraphKind = GraphKind.FAST


DEFAULT = Execution()
