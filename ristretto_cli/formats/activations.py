"""The fractional length of activations from a sample of their values: the rules of --fl_layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ristretto_cli.formats.number_format import Sample
from ristretto_cli.ops import Grid

_MAX_FEWER = 16  # integer bits
# AUTO changes the original's format only if that reduces the squared error to less than this fraction. Nets suffer from
# a few saturated values less than their squares suggest, and many saturated values add up in the next layer.
_WORTH_FEWER_BITS, _WORTH_MORE_BITS = 0.8, 0.4


class FlLayer(Enum):
    """The rule that chooses the fractional length of activations; the values are those of --fl_layer."""

    ORIGINAL = "original"  # the top half of the range saturates
    RANGE = "range"  # nothing in the range saturates
    MSE = "mse"  # minimal squared error
    KL = "kl"  # as auto, then by the divergence of the net's outputs; see corrections/divergence
    AUTO = "auto"  # minimal squared error, but the original's rule unless the gain is clear


@dataclass(frozen=True)
class SquaredError:
    """The sum of the weighted squared errors of a sample, and the part of it that is due to saturation."""

    total: float
    saturation: float


def squared_error(sample: Sample, grid: Grid) -> SquaredError:
    """The squared error of a sample that is rounded to a grid."""
    integers = sample.values.astype(np.float64) * math.ldexp(1.0, grid.frac_bits)
    rounded = np.rint(integers)
    saturated = np.clip(rounded, grid.low, grid.high)
    weighted = np.square(saturated - integers) * sample.weights
    scale = math.ldexp(1.0, -2 * grid.frac_bits)
    return SquaredError(float(weighted.sum()) * scale, float(weighted[saturated != rounded].sum()) * scale)


def integer_bits_of_min_error(bits: int, sample: Sample, *, whole: int, original: int, rule: FlLayer) -> int:
    """The integer bits with the smallest squared error of a sample.

    whole: the integer bits at which nothing saturates, from which fewer are tried. original: those of the original's
    rule, at most `whole`.
    """
    best, smallest = whole, math.inf
    for integer_bits in range(whole, whole - _MAX_FEWER, -1):
        error = squared_error(sample, _grid(bits, integer_bits))
        cost = error.total
        if rule is not FlLayer.MSE and integer_bits != original:
            cost /= _WORTH_FEWER_BITS if integer_bits < original else _WORTH_MORE_BITS
        if cost < smallest:
            best, smallest = integer_bits, cost
        if error.saturation >= smallest:  # which only grows
            break
    return best


def _grid(bits: int, integer_bits: int) -> Grid:
    return Grid(bits - integer_bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
