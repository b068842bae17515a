"""Arithmetic of integer programs: rounding, bounds of sums, windows."""

from __future__ import annotations

import numpy as np

from ristretto_cli.integers.program import Deconvolution, Requantization
from ristretto_cli.integers.rounding import ShiftRounding, divided
from ristretto_cli.integers.values import Sums
from ristretto_cli.ops import AnyArray, PoolGeometry, Shape

_BLOCK = 2**20  # weights that are summed at a time


def requantize(n: AnyArray, to: Requantization, rounding: ShiftRounding) -> AnyArray:
    """int64 n, with magnitudes below 2^61, in another format; see Requantization."""
    if to.shift >= 0 or to.divisor != 1:
        if to.shift < 0:
            n = saturated_shift(n, -to.shift, to.low * to.divisor, to.high * to.divisor)
        return divided(n, max(to.shift, 0), to.divisor, rounding).clip(to.low, to.high)
    return saturated_shift(n, -to.shift, to.low, to.high).clip(to.low, to.high)


def saturated_shift(n: AnyArray, left: int, low: int, high: int) -> AnyArray:
    """n * 2^left for n in the range where that is within low and high; beyond it, a number outside of them."""
    left = min(left, 61)
    return n.clip((low >> left) - 1, (high >> left) + 1) << left


def requantized(n: int, to: Requantization, rounding: ShiftRounding) -> int:
    """The same for one integer."""
    return int(requantize(np.array([n], np.int64), to, rounding)[0])


def rounded(x: AnyArray, rounding: ShiftRounding) -> AnyArray:
    """float64 numbers as integers, still in float64."""
    if rounding is ShiftRounding.HALF_EVEN:
        return np.rint(x)
    if rounding is ShiftRounding.FLOOR:
        return np.floor(x)
    below = np.floor(x)
    rest = x - below  # exact
    if rounding is ShiftRounding.HALF_UP:
        return np.asarray(below + (rest >= 0.5))
    return np.asarray(below + ((rest > 0.5) | ((rest == 0.5) & (x > 0))))


def bounds_of_sums(sums: Sums, biases: AnyArray | None, up: int) -> tuple[int, int]:
    """Bounds of the sums and of all partial sums, in any order, after the shift by `up` and the biases."""
    positive, negative = _sums_by_sign(sums)
    low, high = min(sums.x.low, 0), max(sums.x.high, 0)
    # Python's integers do not overflow.
    highest = [(int(p) * high + int(n) * low) << up for p, n in zip(positive, negative, strict=True)]
    lowest = [(int(p) * low + int(n) * high) << up for p, n in zip(positive, negative, strict=True)]
    if biases is not None:
        highest = [each + max(int(b), 0) for each, b in zip(highest, biases, strict=True)]
        lowest = [each + min(int(b), 0) for each, b in zip(lowest, biases, strict=True)]
    return min(lowest, default=0), max(highest, default=0)


def _sums_by_sign(sums: Sums) -> tuple[AnyArray, AnyArray]:
    """For each output channel, the sums of its positive and of its negative weights."""
    weights = sums.weights
    if sums.kind is Deconvolution and sums.geometry is not None:
        group = sums.geometry.group  # (C, C' / group, *K) to (C', all)
        parts = weights.reshape(group, weights.shape[0] // group, weights.shape[1], -1)
        weights = np.ascontiguousarray(parts.transpose(0, 2, 1, 3)).reshape(group * weights.shape[1], -1)
    rows = weights.reshape(weights.shape[0], -1)
    positive, negative = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    block = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        positive[start : start + block] = np.maximum(part, 0).sum(1, dtype=np.int64)
        negative[start : start + block] = np.minimum(part, 0).sum(1, dtype=np.int64)
    return positive, negative


def window_sizes(geometry: PoolGeometry, extent: Shape, *, padding: bool) -> AnyArray:
    """The number of elements of each window, (H', W'), as Caffe counts them: with the padding for averages.

    Not positive for a window that is entirely outside.
    """
    per_axis = []
    for n, k, s, p, windows in zip(
        extent, geometry.kernel, geometry.stride, geometry.pad, geometry.pooled(extent), strict=True
    ):
        start = np.arange(windows, dtype=np.int64) * s - p
        end = np.minimum(start + k, n + p)
        per_axis.append(end - start if padding else np.minimum(end, n) - np.maximum(start, 0))
    sizes = per_axis[0]
    for each in per_axis[1:]:
        sizes = np.where((sizes[..., None] < 0) & (each < 0), -1, sizes[..., None] * each)
    return sizes
