"""The values of the integer backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.shapes import Sized
from ristretto_cli.integers.program import Function, Place, width_of
from ristretto_cli.ops import AnyArray, Array, ConvGeometry, Grid, Shape

MOST_BITS = 61  # of any place and any sum: int64 with room for rounding
TABLE_BITS = 12  # of an input of a table
_CHUNK = 2**20  # elements that are scaled at a time


@dataclass(frozen=True, eq=False)
class Constant:
    """A float32 array that does not depend on the inputs. grid: of its elements, if known."""

    array: Array
    grid: Grid | None = None

    @property
    def shape(self) -> Shape:
        return self.array.shape

    def integers(self) -> AnyArray:
        """The elements as integers of the grid, in the smallest type that holds its bounds."""
        if self.grid is None:
            raise ValueError("the constant has no grid")
        kind = integer_type(self.grid.low, self.grid.high)
        flat, integers = self.array.reshape(-1), np.empty(self.array.size, kind)
        for start in range(0, flat.size, _CHUNK):
            # float32 does not hold all ends of grids of more than 24 bits.
            part = flat[start : start + _CHUNK].astype(np.float64)
            scaled = np.ldexp(part, np.int32(self.grid.frac_bits)).clip(self.grid.low, self.grid.high)
            integers[start : start + _CHUNK] = scaled
        return integers.reshape(self.array.shape)


@dataclass(frozen=True, eq=False)
class Integers:
    """A place, for each image of a batch. shape: with the batch axis first."""

    shape: Shape
    place: Place


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A float32 function of each element of a place and of its channel, not yet computed.

    function: maps x (K, C or 1, ...) to that shape, broadcast with the constants of the channels. layers: those
    that it is composed of. scale, shift: (1,) or (C,), if it is x * scale + shift, in float64.
    """

    shape: Shape
    place: Place
    function: Function
    layers: tuple[str, ...]
    scale: AnyArray | None = None
    shift: AnyArray | None = None


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of products, not yet requantized: what a Product step needs but its result."""

    shape: Shape
    layer: str
    kind: type
    x: Place
    weights: AnyArray
    weights_grid: Grid
    biases: AnyArray | None
    biases_grid: Grid | None
    geometry: ConvGeometry | None


Value: TypeAlias = Constant | Integers | Pointwise | Sums | Sized  # Sized: floats, whose values are not known


def integer_type(low: int, high: int) -> type[np.signedinteger]:
    """The smallest signed numpy type for integers from low to high, which are below 2^63."""
    bits = width_of(min(low, -1), high)
    for kind, width in ((np.int8, 8), (np.int16, 16), (np.int32, 32)):
        if bits <= width:
            return kind
    return np.int64
