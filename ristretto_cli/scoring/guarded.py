"""A fast graph for finite, in-range inputs, with a fallback for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.host_layers import Runner

BOUND = 2.0**64  # no element of an array that passes `is_finite` is larger


def is_finite(array: AnyArray) -> bool:
    """Whether no element is NaN, infinite, or larger than BOUND."""
    values = np.asarray(array, np.float32).ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(float(np.dot(values, values)))


class GuardedRunner:
    """Runs a fast graph that is valid for finite inputs only; from the first invalid batch on, the fallback.

    guard: the name of a result of the fast graph that must be below 1 as well, if it has one. The fallback is built
    when it is first needed, and then used for all later batches, since more such batches are likely.
    """

    def __init__(self, fast: Runner, fallback: Callable[[], Runner], *, guard: str | None) -> None:
        self._fast: Runner | None = fast
        self._fallback: Runner | None = None
        self._build_fallback = fallback
        self._guard = guard

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        if self._fast is not None and all(is_finite(array) for array in feeds.values()):
            results = self._fast.run(feeds)
            if self._guard is None or float(results.pop(self._guard)) < 1:
                return results
        if self._fallback is None:
            self._fast = None  # frees its memory before the fallback needs as much
            self._fallback = self._build_fallback()
        return self._fallback.run(feeds)
