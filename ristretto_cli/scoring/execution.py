"""Execution options: the device, its threads, and the kind of graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class GraphKind(Enum):
    """The kind of ONNX graph that computes a net; the values are those of --graph."""

    FAST = "fast"  # integer kernels where they are exact, no quantization without effect
    PLAIN = "plain"  # one node per primitive, as `export --format onnx` writes it


@dataclass(frozen=True)
class Execution:
    """Options for running a net.

    gpu: the number of the CUDA device, None for the CPU. threads: the number of CPU threads, 0 for one per core.
    """

    gpu: int | None = None
    threads: int = 0
    graph: GraphKind = GraphKind.FAST


DEFAULT = Execution()
