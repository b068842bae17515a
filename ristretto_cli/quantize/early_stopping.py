"""Early stopping: an evaluation ends as soon as the remaining batches cannot change whether it passes."""

from __future__ import annotations

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Net
from ristretto_cli.quantize.margin import Margin
from ristretto_cli.scoring.comparisons import Agreement, Comparison


class EarlyStopping:
    """A stopping rule for a score that is the mean of one value in [0, 1] for each of `iterations` batches.

    blob: the output with these values. single_precision: they are summed in float32. passed: whether the score is
    within the margin; None until it is certain.
    """

    def __init__(self, blob: str, margin: Margin, iterations: int, *, single_precision: bool = False) -> None:
        self.blob = blob
        self.passed: bool | None = None
        self._margin = margin
        self._iterations = iterations
        self._epsilon = float(np.finfo(np.float32 if single_precision else np.float64).eps)

    def should_stop(self, total: float, done: int) -> bool:
        """Whether the sum of the first `done` batches decides if the score is within the margin."""
        low, high = self._bounds(total, self._iterations - done)
        lowest, highest = self._margin.allows(low), self._margin.allows(high)
        self.passed = lowest if lowest == highest else None
        return self.passed is not None

    def _bounds(self, total: float, left: int) -> tuple[float, float]:
        """The lowest and the highest possible mean with `left` batches still to come."""
        # Each sum and the division may be rounded by half an epsilon; twice as much is allowed here.
        slack = 1 + (left + 2) * self._epsilon
        return total / self._iterations / slack, (total + left) / self._iterations * slack


def check_early_stop(net: Net, blob: str, comparison: Comparison | None = None) -> None:
    """RistrettoError unless a score is an accuracy or an agreement, which lies in [0, 1] for each batch."""
    if isinstance(comparison, Agreement):
        return
    if not any(layer.type == "Accuracy" and layer.tops[0].name == blob for layer in net.layers):
        raise RistrettoError(
            f'--early_stop needs a score with known bounds, but "{blob}" is not the top of an Accuracy layer',
            where=net.file,
            hint="Omit --early_stop.",
        )
