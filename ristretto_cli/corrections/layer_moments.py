"""Second moments of a layer's inputs, of the quantized and of the float net, over sampled places of all images."""

from __future__ import annotations

import numpy as np

from ristretto_cli.ops import AnyArray


class LayerMoments:
    """Moments of inputs a of the quantized net and b of the float net, (G, D) for each of G groups of channels.

    They are summed about the means of the first batch: about 0 the small variance of large inputs would be lost in
    rounding.
    """

    def __init__(self, groups: int, columns: int) -> None:
        self._count = 0
        self._own, self._cross = np.zeros((2, groups, columns, columns))
        self._sum, self._float_sum = np.zeros((2, groups, columns))
        self._origin, self._float_origin = np.zeros((2, groups, columns), np.float32)

    def add(self, own: AnyArray, floats: AnyArray) -> None:
        """Add inputs (G, N, D) of the quantized and of the float net."""
        if not self._count:
            self._origin, self._float_origin = own.mean(1), floats.mean(1)
        self._count += own.shape[1]
        own, floats = own - self._origin[:, None], floats - self._float_origin[:, None]
        self._own += own.transpose(0, 2, 1) @ own
        self._cross += floats.transpose(0, 2, 1) @ own
        self._sum += own.sum(1, dtype=np.float64)
        self._float_sum += floats.sum(1, dtype=np.float64)

    @property
    def count(self) -> int:
        """The number of inputs that were added."""
        return self._count

    @property
    def mean(self) -> AnyArray:
        """The mean of a, (G, D)."""
        return self._origin + self._sum / self._count

    @property
    def float_mean(self) -> AnyArray:
        """The mean of b, (G, D)."""
        return self._float_origin + self._float_sum / self._count

    def centred(self) -> tuple[AnyArray, AnyArray]:
        """The covariances of a with a, and of b with a, (G, D, D)."""
        mean, float_mean = self._sum / self._count, self._float_sum / self._count
        return self._own / self._count - _products(mean, mean), self._cross / self._count - _products(float_mean, mean)

    def about_zero(self) -> tuple[AnyArray, AnyArray]:
        """The moments of a with a, and of b with a, (G, D, D)."""
        own, cross = self.centred()
        return own + _products(self.mean, self.mean), cross + _products(self.float_mean, self.mean)

    def with_ones(self) -> tuple[AnyArray, AnyArray]:
        """The moments of a with a, and of b with a, both with an input of 1 after the others: (G, D + 1, D + 1)."""
        own, cross = self.about_zero()
        return _bordered(own, self.mean, self.mean), _bordered(cross, self.float_mean, self.mean)


def _products(one: AnyArray, other: AnyArray) -> AnyArray:
    return one[:, :, None] * other[:, None, :]


def _bordered(matrix: AnyArray, right: AnyArray, bottom: AnyArray) -> AnyArray:
    groups, size, _ = matrix.shape
    bordered = np.ones((groups, size + 1, size + 1))
    bordered[:, :size, :size] = matrix
    bordered[:, :size, size] = right
    bordered[:, size, :size] = bottom
    return bordered
