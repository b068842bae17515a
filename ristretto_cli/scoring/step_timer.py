"""The time that each phase of a search takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

_PHASES = ("reading data", "building nets", "running")


@dataclass
class StepTimer:
    """Seconds by phase: waiting for data, waiting for nets to be built, running nets, and others that are measured."""

    clock: Callable[[], float] = perf_counter
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PHASES, 0.0))

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time that the block takes to a phase."""
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self.clock() - start

    def line(self) -> str:
        """All phases in one line, for the log."""
        return "Seconds: " + ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in self.seconds.items()) + "."
