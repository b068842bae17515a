"""The primitives of number formats on numpy arrays, for quantizing weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from ristretto_cli.formats.fixed import stepwise
from ristretto_cli.formats.minifloat import floatwise
from ristretto_cli.ops import AnyArray, Array, Floats, Grid, Ops, Shape


class NumpyOps:
    """The part of `Ops` that works element by element or reduces, computed at once; its values are float32 arrays.

    rng drives stochastic rounding. Floating-point exceptions are silent: NaN and infinity are values here.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None) -> Array:
        return np.asarray(array, np.float32)

    def add(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return a + b

    def sub(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return a - b

    def mul(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return a * b

    def div(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return a / b

    def pow(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.power(a, b)

    def maximum(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)

    def abs(self, x: Array) -> Array:
        return np.abs(x)

    def exp(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.exp(x)

    def log(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.log(x)

    def sqrt(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.sqrt(x)

    def tanh(self, x: Array) -> Array:
        return np.tanh(x)

    def quantize_fixed(self, x: Array, grid: Grid) -> Array:
        return stepwise(numpy_ops(self._rng), x, grid, self.round)

    def quantize_float(self, x: Array, floats: Floats) -> Array:
        return floatwise(numpy_ops(self._rng), x, floats)

    def relu(self, x: Array) -> Array:
        return self.maximum(x, self.constant(0.0))

    def equal(self, a: Array, b: Array) -> AnyArray:
        return np.equal(a, b)

    def log2(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.log2(x.astype(np.float64)).astype(np.float32)

    def floor(self, x: Array) -> Array:
        return np.floor(x)

    def round(self, x: Array) -> Array:
        return np.rint(x)

    def clip(self, x: Array, low: float, high: float) -> Array:
        low_, high_ = np.float32(low), np.float32(high)
        return np.where(x <= high_, np.where(x < low_, low_, x), high_)

    def less(self, a: Array, b: Array) -> AnyArray:
        return np.less(a, b)

    def greater_equal(self, a: Array, b: Array) -> AnyArray:
        return np.greater_equal(a, b)

    def where(self, condition: AnyArray, a: Array, b: Array) -> Array:
        return np.where(condition, a, b)

    def reshape(self, x: Array, shape: Shape) -> Array:
        return x.reshape(shape)

    def expand(self, x: Array, shape: Shape) -> Array:
        return np.broadcast_to(x, shape)

    def sum(self, x: Array, axes: Sequence[int]) -> Array:
        return np.asarray(np.sum(x, axis=tuple(axes), keepdims=True))

    def mean(self, x: Array, axes: Sequence[int]) -> Array:
        return np.asarray(np.mean(x, axis=tuple(axes), keepdims=True))

    def max(self, x: Array, axes: Sequence[int]) -> Array:
        return np.asarray(np.max(x, axis=tuple(axes), keepdims=True))

    def uniform(self, shape: Shape) -> Array:
        return self._rng.random(shape, dtype=np.float32)


def numpy_ops(rng: np.random.Generator) -> Ops[Array]:
    """NumpyOps as the Ops of number formats, which do not need the missing primitives (convolutions, pooling)."""
    return cast("Ops[Array]", NumpyOps(rng))
