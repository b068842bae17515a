"""How nets are run: the device, its threads, and the passes that rewrite their graphs."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.backends.graph_passes.graph_pass import all_passes


@dataclass(frozen=True)
class Execution:
    """How a net is run.

    gpu: the number of the CUDA device, None for the CPU. threads: how many the CPU may use, 0 for one per core.
    graph_passes: the passes that rewrite the graph, by name; None for all of them, and none for the plain graph, with
    one node per primitive.
    """

    gpu: int | None = None
    threads: int = 0
    graph_passes: tuple[str, ...] | None = None

    @property
    def passes(self) -> tuple[str, ...]:
        """The names of the passes, in the order in which they run."""
        return tuple(all_passes()) if self.graph_passes is None else self.graph_passes


DEFAULT = Execution()
