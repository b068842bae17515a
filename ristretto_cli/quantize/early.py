"""Telling before all batches are run whether a net's score will be within the margin."""

from __future__ import annotations

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Net
from ristretto_cli.quantize.search import Margin


class EarlyVerdict:
    """The verdict on a score that is the mean of a number from 0 to 1 for each of `iterations` batches.

    single_precision: the numbers are summed up in float32. passed: the verdict; None until it is known.
    """

    def __init__(self, margin: Margin, iterations: int, *, single_precision: bool = False) -> None:
        self._margin = margin
        self._iterations = iterations
        self._epsilon = float(np.finfo(np.float32 if single_precision else np.float64).eps)
        self.passed: bool | None = None

    def decided(self, total: float, done: int) -> bool:
        """Whether the verdict is the same for all that can come, by the sum of the first `done` batches."""
        low, high = self._bounds(total, self._iterations - done)
        lowest, highest = self._margin.allows(low), self._margin.allows(high)
        self.passed = lowest if lowest == highest else None
        return self.passed is not None

    def _bounds(self, total: float, left: int) -> tuple[float, float]:
        """What the mean lies between if `left` batches are still to come."""
        # Each sum and the division may be rounded by half an epsilon; twice as much is allowed here.
        slack = 1 + (left + 2) * self._epsilon
        return total / self._iterations / slack, (total + left) / self._iterations * slack


def check_early_stop(net: Net, blob: str) -> None:
    """RistrettoError unless a blob of the net is a share of right answers, of each batch from 0 to 1."""
    if not any(layer.type == "Accuracy" and layer.tops[0].name == blob for layer in net.layers):
        raise RistrettoError(
            f'--early_stop needs a score with known bounds, and "{blob}" is no Accuracy layer\'s',
            where=net.file,
            remedy="Leave --early_stop out.",
        )
