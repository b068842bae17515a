"""The ONNX backend that knows its constants, how large its values can become, and which are never negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ristretto_cli.backends.numpy_ops import NumpyOps
from ristretto_cli.backends.onnx_graph import Node
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.backends.onnx_pool import Windows
from ristretto_cli.ops import AnyArray, ConvGeometry, Grid, PoolGeometry, Shape

# Far enough below float32's end that rounding on the way cannot reach infinity.
FAR_FROM_INFINITY = 2.0**120
_SMALL = 2**16  # elements of constants that are computed beforehand


class BoundedOps(OnnxOps):
    """OnnxOps that computes with small constants at once, and knows of many values that they are finite.

    A bound is a magnitude that no element of a value exceeds, whatever is fed; rounding may exceed it by a little. A
    value with a bound is never NaN or infinite. Values without a known bound may be anything.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        super().__init__(rng)
        self.bound_of_inputs: float | None = None
        self._bounds: dict[str, float | None] = {}
        self._least: dict[str, float] = {}
        self._numpy = NumpyOps(np.random.default_rng(0))

    def input(self, name: str, shape: Shape) -> Node:
        """A value that is fed to the model under this name; its bound is bound_of_inputs."""
        return self._set_bound(super().input(name, shape), self.bound_of_inputs)

    def known(self, x: Node) -> AnyArray | None:
        """The array, where x is a constant."""
        return self.graph.initializers.get(x.name)

    def bound(self, x: Node) -> float | None:
        """The largest magnitude that x can have; None where nothing is known of it."""
        if x.name not in self._bounds:
            array = self.known(x)
            self._set_bound(x, None if array is None or array.dtype != np.float32 else _largest(array))
        return self._bounds[x.name]

    def _set_bound(self, x: Node, bound: float | None, *, never_negative: bool = False) -> Node:
        self._bounds[x.name] = bound if bound is not None and bound < FAR_FROM_INFINITY else None
        return self._set_least(x, 0.0) if never_negative else x

    def _set_least(self, x: Node, least: float) -> Node:
        self._least[x.name] = max(least, self._least.get(x.name, -math.inf))
        return x

    def least(self, x: Node) -> float:
        """The least number that x can have: -inf where nothing is known of it. Some elements may be NaN."""
        if x.name not in self._least:
            array = self.known(x)
            constant = array is not None and array.dtype == np.float32 and array.size > 0
            self._least[x.name] = float(array.min()) if array is not None and constant else -math.inf
        return self._least[x.name]

    def never_negative(self, *values: Node) -> bool:
        return all(self.least(value) >= 0 for value in values)

    def _fold(self, primitive: str, x: Node, *args: Any) -> Node | None:
        """What a primitive makes of constants, as a constant; None where something is not known or not small.

        For primitives whose results are the same everywhere: they are rounded correctly, or not at all.
        """
        operands = [self.known(arg) if isinstance(arg, Node) else arg for arg in (x, *args)]
        arrays = [operand for operand in operands if isinstance(operand, np.ndarray)]
        if any(operand is None for operand in operands) or any(array.size > _SMALL for array in arrays):
            return None
        result = np.asarray(getattr(self._numpy, primitive)(*operands))
        return self.graph.constant(result) if result.size <= _SMALL else None

    # element by element
    def add(self, a: Node, b: Node) -> Node:
        folded = self._fold("add", a, b)
        if folded is not None:
            return folded
        top = self._set_bound(super().add(a, b), self._sum(a, b))
        return self._set_least(top, self.least(a) + self.least(b)) if self.never_negative(a, b) else top

    def sub(self, a: Node, b: Node) -> Node:
        return self._fold("sub", a, b) or self._set_bound(super().sub(a, b), self._sum(a, b))

    def mul(self, a: Node, b: Node) -> Node:
        return self._fold("mul", a, b) or self._set_bound(
            super().mul(a, b),
            self._times(self.bound(a), self.bound(b)),
            never_negative=a.name == b.name or self.never_negative(a, b),
        )

    def div(self, a: Node, b: Node) -> Node:
        folded = self._fold("div", a, b)
        if folded is not None:
            return folded
        divisor, least = self.known(b), 0.0
        if divisor is not None and self.bound(b) is not None:
            least = float(np.abs(divisor).min(initial=np.inf))
        bound = self._times(self.bound(a), 1 / least) if least > 0 else None
        return self._set_bound(super().div(a, b), bound, never_negative=self.never_negative(a, b))

    def maximum(self, a: Node, b: Node) -> Node:
        return self._fold("maximum", a, b) or self._set_bound(
            super().maximum(a, b),
            self._most(a, b),
            never_negative=self.never_negative(a) or self.never_negative(b),
        )

    def pow(self, a: Node, b: Node) -> Node:
        exponents = self.known(b)
        grows = exponents is None or exponents.max(initial=0) > 0
        bound = 1.0 if self.least(a) >= 1 and not grows and self.bound(a) is not None else None
        return self._set_bound(super().pow(a, b), bound, never_negative=self.never_negative(a))

    def abs(self, x: Node) -> Node:
        return self._fold("abs", x) or self._set_bound(super().abs(x), self.bound(x), never_negative=True)

    def exp(self, x: Node) -> Node:
        return self._set_bound(super().exp(x), None, never_negative=True)

    def sqrt(self, x: Node) -> Node:
        return self._fold("sqrt", x) or self._set_bound(super().sqrt(x), None, never_negative=True)

    def floor(self, x: Node) -> Node:
        return self._fold("floor", x) or self._set_bound(
            super().floor(x), self._plus_one(x), never_negative=self.never_negative(x)
        )

    def round(self, x: Node) -> Node:
        return self._fold("round", x) or self._set_bound(
            super().round(x), self._plus_one(x), never_negative=self.never_negative(x)
        )

    def clip(self, x: Node, low: float, high: float) -> Node:
        if self.bound(x) is None:
            top = super().clip(x, low, high)
        else:
            top = self._one("Clip", [x, self.constant(low), self.constant(high)], x)
        return self._set_bound(top, max(abs(low), abs(high)), never_negative=low >= 0 and high >= 0)

    def quantize_fixed(self, x: Node, grid: Grid) -> Node:
        never_negative = grid.low >= 0 or (self.never_negative(x) and grid.high >= 0)
        return self._set_bound(super().quantize_fixed(x, grid), grid.largest, never_negative=never_negative)

    def relu(self, x: Node) -> Node:
        return self._set_bound(super().relu(x), self.bound(x), never_negative=True)

    def sigmoid(self, x: Node) -> Node:
        return self._set_bound(super().sigmoid(x), None if self.bound(x) is None else 1.0, never_negative=True)

    def tanh(self, x: Node) -> Node:
        return self._set_bound(super().tanh(x), None if self.bound(x) is None else 1.0)

    def equal(self, a: Node, b: Node) -> Node:
        return self._fold("equal", a, b) or super().equal(a, b)

    def less(self, a: Node, b: Node) -> Node:
        return self._fold("less", a, b) or super().less(a, b)

    def greater_equal(self, a: Node, b: Node) -> Node:
        return self._fold("greater_equal", a, b) or super().greater_equal(a, b)

    def where(self, condition: Node, a: Node, b: Node) -> Node:
        folded = self._fold("where", condition, a, b)
        return folded or self._set_bound(
            super().where(condition, a, b), self._most(a, b), never_negative=self.never_negative(a, b)
        )

    # shapes
    def reshape(self, x: Node, shape: Sequence[int]) -> Node:
        folded = self._fold("reshape", x, tuple(shape))
        return folded or self._same(super().reshape(x, tuple(shape)), x)

    def transpose(self, x: Node, axes: Sequence[int]) -> Node:
        return self._same(super().transpose(x, axes), x)

    def concat(self, xs: Sequence[Node], axis: int) -> Node:
        return self._set_bound(super().concat(xs, axis), self._most(*xs), never_negative=self.never_negative(*xs))

    def slice(self, x: Node, axis: int, start: int, stop: int) -> Node:
        return self._same(super().slice(x, axis, start, stop), x)

    # nets
    def linear(self, x: Node, weight: Node, bias: Node | None) -> Node:
        return self._set_bound(super().linear(x, weight, bias), self._products(x, weight, bias, weight.shape[1]))

    def conv(self, x: Node, weight: Node, bias: Node | None, geometry: ConvGeometry) -> Node:
        top = super().conv(x, weight, bias, geometry)
        return self._set_bound(top, self._products(x, weight, bias, math.prod(weight.shape[1:])))

    def max_pool(self, x: Node, geometry: PoolGeometry) -> Node:
        top = super().max_pool(x, geometry)
        filled = any(axis.outside for axis in Windows.of(x.shape[2:], geometry))
        return self._set_bound(top, None) if filled else self._same(top, x)

    def ave_pool(self, x: Node, geometry: PoolGeometry) -> Node:
        top = super().ave_pool(x, geometry)
        filled = any(axis.cells[-1] <= 0 for axis in Windows.of(x.shape[2:], geometry))
        return self._set_bound(top, None if filled else self.bound(x), never_negative=self.never_negative(x))

    def lrn(self, x: Node, *, size: int, alpha: float, beta: float, k: float) -> Node:
        top = super().lrn(x, size=size, alpha=alpha, beta=beta, k=k)
        return self._set_bound(top, self._normalized(x, alpha, beta, k), never_negative=self.never_negative(x))

    def softmax(self, x: Node, axis: int) -> Node:
        return self._set_bound(super().softmax(x, axis), None if self.bound(x) is None else 1.0, never_negative=True)

    def _same(self, top: Node, x: Node) -> Node:
        """A top whose elements are some of x's."""
        return self._set_bound(top, self.bound(x), never_negative=self.never_negative(x))

    def _normalized(self, x: Node, alpha: float, beta: float, k: float) -> float | None:
        """The bound of lrn. onnxruntime goes through the channels adding a square to k and taking another one away:
        what is lost of k on the way, where squares are large, can make the sum 0 or negative."""
        bound = self.bound(x)
        if bound is None or not (0 <= alpha < math.inf and 0 <= beta < math.inf and 0 < k < math.inf):
            return None
        lost = 2.0**-23 * x.shape[1] * (k + 2 * alpha * bound * bound)
        grows_bits = -beta * math.log2(k / 2)
        return bound * 2.0**grows_bits if lost < k / 2 and grows_bits < 100 else None

    def _sum(self, *values: Node) -> float | None:
        bounds = [self.bound(value) for value in values]
        return math.fsum(bound for bound in bounds if bound is not None) if None not in bounds else None

    def _most(self, *values: Node) -> float | None:
        bounds = [self.bound(value) for value in values]
        return max(bound for bound in bounds if bound is not None) if None not in bounds else None

    def _plus_one(self, x: Node) -> float | None:
        bound = self.bound(x)
        return None if bound is None else bound + 1

    def _times(self, a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a * b

    def _products(self, x: Node, weight: Node, bias: Node | None, count: int) -> float | None:
        """The bound of sums of so many products and a bias."""
        if self.bound(x) is None:
            return None
        most = self._times(self.bound(x), self.bound(weight))
        added = self.bound(bias) if bias is not None else 0.0
        return None if most is None or added is None else most * count + added


def _largest(array: AnyArray) -> float | None:
    """The largest magnitude of an array; None where it is not finite."""
    low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
    return max(-low, high) if math.isfinite(low) and math.isfinite(high) else None
