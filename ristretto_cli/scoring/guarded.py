"""Graphs that rest on assumptions: right for almost every batch, and cheaper. For the others there is another graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.host_layers import Runner

BOUND = 2.0**64  # no element of what `is_finite` is larger


def is_finite(array: AnyArray) -> bool:
    """Whether no element is NaN, infinite, or larger than BOUND."""
    values = np.asarray(array, np.float32).ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(float(np.dot(values, values)))


class AssumingRunner:
    """Runs what assumes that inputs are finite, and that its result of the name `peak`, if there is one, is below 1.

    From the first batch on that is not so it runs what assumes nothing, which is made then: one such batch is seldom
    the only one.
    """

    def __init__(self, assuming: Runner, unassuming: Callable[[], Runner], *, peak: str | None) -> None:
        self._assuming: Runner | None = assuming
        self._unassuming: Runner | None = None
        self._make = unassuming
        self._peak = peak

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        if self._assuming is not None and all(is_finite(array) for array in feeds.values()):
            results = self._assuming.run(feeds)
            if self._peak is None or float(results.pop(self._peak)) < 1:
                return results
        if self._unassuming is None:
            self._assuming = None  # what it holds may be as large as what is made now
            self._unassuming = self._make()
        return self._unassuming.run(feeds)
