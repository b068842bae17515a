"""Where the time of a search goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

_KINDS = ("reading data", "building nets", "running")


@dataclass
class Stopwatch:
    """Seconds by what they were spent on: waiting for data, waiting for nets to be built, running nets."""

    clock: Callable[[], float] = perf_counter
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0.0))

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Add the time that the body takes to one of `seconds`."""
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[what] += self.clock() - start

    def line(self) -> str:
        """All of them in one line."""
        return "Seconds: " + ", ".join(f"{what} {seconds:.2f}" for what, seconds in self.seconds.items()) + "."
