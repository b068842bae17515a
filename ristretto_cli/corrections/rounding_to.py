"""Rounding of float64 arrays to the numbers of a format."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.number_format import NumberFormat, Rounding
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.ops import AnyArray, Array

RoundTo: TypeAlias = Callable[[AnyArray], AnyArray]  # to the nearest numbers of a format, element by element


def round_to(number_format: NumberFormat) -> RoundTo:
    """Rounding to the nearest number of a format."""
    if isinstance(number_format, PowerOfTwo):
        return _to_nearest_of(number_format)
    if not isinstance(number_format, Fixed):
        return lambda x: quantized(x.astype(np.float32), number_format).astype(np.float64)
    grid = number_format.grid()
    step = np.ldexp(1.0, -grid.frac_bits)
    return lambda x: np.clip(np.rint(x / step), grid.low, grid.high) * step


def _to_nearest_of(number_format: PowerOfTwo) -> RoundTo:
    """Rounding to the nearest power of two by difference; the format itself rounds by ratio."""
    exponents = np.arange(number_format.exp_min, max(number_format.exp_min, number_format.exp_max) + 1)
    positive = np.ldexp(1.0, exponents)
    numbers = np.concatenate([-positive[::-1], positive])
    borders = (numbers[1:] + numbers[:-1]) / 2
    return lambda x: numbers[np.searchsorted(borders, x, side="right")]


def quantized(array: Array, number_format: NumberFormat | None) -> Array:
    """A float32 array as a net quantizes it."""
    if number_format is None:
        return array
    return number_format.quantize(numpy_ops(np.random.default_rng(0)), array, Rounding.NEAREST)
