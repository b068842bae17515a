"""Rounding of float64 arrays to the numbers of a format."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.formats.number_format import NumberFormat, Rounding
from ristretto_cli.ops import AnyArray, Array

RoundTo: TypeAlias = Callable[[AnyArray], AnyArray]  # to the nearest numbers of a format, element by element


def round_to(number_format: NumberFormat) -> RoundTo:
    """Rounding to the nearest number of a format."""
    grid = number_format.grid()
    if grid is None:
        return lambda x: quantized(x.astype(np.float32), number_format).astype(np.float64)
    step = np.ldexp(1.0, -grid.frac_bits)
    return lambda x: np.clip(np.rint(x / step), grid.low, grid.high) * step


def quantized(array: Array, number_format: NumberFormat | None) -> Array:
    """A float32 array as a net quantizes it."""
    if number_format is None:
        return array
    return number_format.quantize(numpy_ops(np.random.default_rng(0)), array, Rounding.NEAREST)
