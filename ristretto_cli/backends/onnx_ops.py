"""The backend that records each primitive as nodes of an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
from onnx import TensorProto

from ristretto_cli.backends.onnx_graph import Node, conv_attributes
from ristretto_cli.backends.onnx_regions import RegionNodes
from ristretto_cli.backends.shapes import ShapeOps, Sized, checked_axes
from ristretto_cli.formats.fixed import stepwise
from ristretto_cli.formats.minifloat import floatwise
from ristretto_cli.ops import AnyArray, ConvGeometry, Floats, Grid, Shape, log_of_softmax, standardized

_SHAPES = ShapeOps()
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


class OnnxOps(RegionNodes):
    """`Ops` that build `graph`. Shapes, and what is refused, are those of ShapeOps.

    rng: where the seeds of random nodes come from; the same one gives the same numbers in each session.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self._rng = np.random.default_rng(0) if rng is None else rng

    def input(self, name: str, shape: Shape) -> Node:
        """A value that is fed to the model under this name."""
        return self.graph.input(name, shape)

    def scope(self, name: str) -> AbstractContextManager[None]:
        return self.graph.scope(name)

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None, name: str = "") -> Node:
        """name: what the array is called in the model; small constants without a name are shared."""
        if isinstance(array, np.ndarray) and array.dtype == np.float32:
            return self.graph.constant(array, name)
        return self.graph.constant(np.asarray(array, dtype=np.float32), name)

    def add(self, a: Node, b: Node) -> Node:
        return self._one("Add", [a, b], _SHAPES.add(a, b))

    def sub(self, a: Node, b: Node) -> Node:
        return self._one("Sub", [a, b], _SHAPES.sub(a, b))

    def mul(self, a: Node, b: Node) -> Node:
        return self._one("Mul", [a, b], _SHAPES.mul(a, b))

    def div(self, a: Node, b: Node) -> Node:
        return self._one("Div", [a, b], _SHAPES.div(a, b))

    def maximum(self, a: Node, b: Node) -> Node:
        return self._one("Max", [a, b], _SHAPES.maximum(a, b))

    def pow(self, a: Node, b: Node) -> Node:
        return self._one("Pow", [a, b], _SHAPES.pow(a, b))

    def abs(self, x: Node) -> Node:
        return self._one("Abs", [x], _SHAPES.abs(x))

    def exp(self, x: Node) -> Node:
        return self._one("Exp", [x], _SHAPES.exp(x))

    def log(self, x: Node) -> Node:
        return self._one("Log", [x], _SHAPES.log(x))

    def log2(self, x: Node) -> Node:
        shape = _SHAPES.log2(x)
        wide = self._one("Cast", [x], shape, to=TensorProto.DOUBLE)
        natural = self._one("Log", [wide], shape)
        # In double precision the error of this factor is far below a float32's last place.
        factor = self.graph.constant(np.asarray(1 / np.log(2.0)))
        return self._one("Cast", [self._one("Mul", [natural, factor], shape)], shape, to=TensorProto.FLOAT)

    def sqrt(self, x: Node) -> Node:
        return self._one("Sqrt", [x], _SHAPES.sqrt(x))

    def floor(self, x: Node) -> Node:
        return self._one("Floor", [x], _SHAPES.floor(x))

    def round(self, x: Node) -> Node:
        return self._one("Round", [x], _SHAPES.round(x))

    def clip(self, x: Node, low: float, high: float) -> Node:
        # ONNX's Clip passes NaN on; a comparison with NaN is false, and so picks high.
        top = self.constant(high)
        return self.where(self.less(x, top), self.maximum(x, self.constant(low)), top)

    def quantize_fixed(self, x: Node, grid: Grid) -> Node:
        return stepwise(self, x, grid, self.round)

    def quantize_float(self, x: Node, floats: Floats) -> Node:
        return floatwise(self, x, floats)

    def straight_through(self, x: Node, trimmed: Node, within: float | None = None) -> Node:
        return trimmed

    def detach(self, x: Node) -> Node:
        return x

    def relu(self, x: Node) -> Node:
        return self._one("Relu", [x], _SHAPES.relu(x))

    def never_negative(self, *values: Node) -> bool:
        """Whether it is known of these values that no element is below 0; some may be NaN."""
        return False

    def softplus(self, x: Node) -> Node:
        return self._one("Softplus", [x], _SHAPES.softplus(x))

    def sigmoid(self, x: Node) -> Node:
        return self._one("Sigmoid", [x], _SHAPES.sigmoid(x))

    def tanh(self, x: Node) -> Node:
        return self._one("Tanh", [x], _SHAPES.tanh(x))

    def equal(self, a: Node, b: Node) -> Node:
        return self._one("Equal", [a, b], _SHAPES.equal(a, b))

    def less(self, a: Node, b: Node) -> Node:
        return self._one("Less", [a, b], _SHAPES.less(a, b))

    def greater_equal(self, a: Node, b: Node) -> Node:
        return self._one("GreaterOrEqual", [a, b], _SHAPES.greater_equal(a, b))

    def where(self, condition: Node, a: Node, b: Node) -> Node:
        return self._one("Where", [condition, a, b], _SHAPES.where(condition, a, b))

    def reshape(self, x: Node, shape: Shape) -> Node:
        # With allowzero, an extent of 0 means 0, and not the input's extent.
        return self._one("Reshape", [x, self._ints(shape)], _SHAPES.reshape(x, shape), allowzero=1)

    def transpose(self, x: Node, axes: Sequence[int]) -> Node:
        shape = _SHAPES.transpose(x, axes)
        return self._one("Transpose", [x], shape, perm=list(axes)) if axes else x

    def expand(self, x: Node, shape: Shape) -> Node:
        return self._one("Expand", [x, self._ints(shape)], _SHAPES.expand(x, shape))

    def concat(self, xs: Sequence[Node], axis: int) -> Node:
        return self._one("Concat", list(xs), _SHAPES.concat(xs, axis), axis=axis)

    def slice(self, x: Node, axis: int, start: int, stop: int) -> Node:
        bounds = [self._ints([start]), self._ints([stop]), self._ints([axis])]
        return self._one("Slice", [x, *bounds], _SHAPES.slice(x, axis, start, stop))

    def pad(self, x: Node, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Node:
        borders = self._ints([*before, *after])
        return self._one("Pad", [x, borders, self.constant(value)], _SHAPES.pad(x, before, after), mode="constant")

    def gather(self, x: Node, indices: Node, axis: int) -> Node:
        shape = _SHAPES.gather(x, indices, axis)
        (axis,) = checked_axes(x.shape, [axis])
        # ONNX's Gather counts negative indices from the end, and a cast of NaN or infinity has no defined result:
        # all of these become an index that is out of range.
        beyond = self.constant(float(2**31))
        known = self.where(self.less(self.constant(-1.0), indices), indices, beyond)
        whole = self._one("Cast", [self._one("Min", [known, beyond], indices)], indices, to=TensorProto.INT64)
        return self._one("Gather", [x, whole], shape, axis=axis)

    def unfold(self, x: Node, kernel: Shape, geometry: ConvGeometry) -> Node:
        top = _SHAPES.unfold(x, kernel, geometry).shape
        extent, axes, pad = top[2:], range(len(kernel)), geometry.pad
        if any(pad):
            x = self.pad(x, [0, 0, *pad], [0, 0, *pad])
        shape = list(x.shape)
        for axis in reversed(axes):  # from the last, so that the axes in front keep their numbers
            cells = np.arange(kernel[axis])[:, None] * geometry.dilation[axis]
            starts = np.arange(extent[axis]) * geometry.stride[axis]
            places = self.graph.constant((cells + starts).astype(np.int64))
            shape[axis + 2 : axis + 3] = places.shape
            x = self._one("Gather", [x, places], Sized(tuple(shape)), axis=axis + 2)
        order = [0, 1, *(2 * axis + 2 for axis in axes), *(2 * axis + 3 for axis in axes)]
        return self.reshape(self.transpose(x, order), top)

    def sum(self, x: Node, axes: Sequence[int]) -> Node:
        return self._one("ReduceSum", [x, self._ints(axes)], _SHAPES.sum(x, axes), noop_with_empty_axes=1)

    def mean(self, x: Node, axes: Sequence[int]) -> Node:
        return self._one("ReduceMean", [x, self._ints(axes)], _SHAPES.mean(x, axes), noop_with_empty_axes=1)

    def max(self, x: Node, axes: Sequence[int]) -> Node:
        return self._one("ReduceMax", [x, self._ints(axes)], _SHAPES.max(x, axes), noop_with_empty_axes=1)

    def top_k(self, x: Node, k: int, axis: int) -> tuple[Node, Node]:
        shape = _SHAPES.top_k(x, k, axis)[0]
        (axis,) = checked_axes(x.shape, [axis])
        # Of equals, TopK puts the smaller index first. So it gets the axis backwards.
        ends = [self._ints([n]) for n in (-1, -(2**31), axis, -1)]
        backwards = self._one("Slice", [x, *ends], x)
        values, places = self.graph.record(
            "TopK", [backwards, self._ints([k])], [shape.shape] * 2, axis=axis, largest=1, sorted=1
        )
        index = self._one("Cast", [places], shape, to=TensorProto.FLOAT)
        return values, self.sub(self.constant(x.shape[axis] - 1), index)

    def matmul(self, a: Node, b: Node) -> Node:
        return self._one("MatMul", [a, b], _SHAPES.matmul(a, b))

    def linear(self, x: Node, weight: Node, bias: Node | None) -> Node:
        return self._one("Gemm", _operands(x, weight, bias), _SHAPES.linear(x, weight, bias), transB=1)

    def conv(self, x: Node, weight: Node, bias: Node | None, geometry: ConvGeometry) -> Node:
        operands, attributes = _operands(x, weight, bias), conv_attributes(weight.shape[2:], geometry)
        return self._one("Conv", operands, _SHAPES.conv(x, weight, bias, geometry), **attributes)

    def deconv(self, x: Node, weight: Node, bias: Node | None, geometry: ConvGeometry) -> Node:
        operands, attributes = _operands(x, weight, bias), conv_attributes(weight.shape[2:], geometry)
        return self._one("ConvTranspose", operands, _SHAPES.deconv(x, weight, bias, geometry), **attributes)

    def lrn(self, x: Node, *, size: int, alpha: float, beta: float, k: float) -> Node:
        shape = _SHAPES.lrn(x, size=size, alpha=alpha, beta=beta, k=k)
        numbers = {"alpha": float(alpha), "beta": float(beta), "bias": float(k)}
        if len(x.shape) == 4:
            return self._one("LRN", [x], shape, size=size, **numbers)
        # onnxruntime has LRN for images only.
        image = self.reshape(x, (*x.shape[:2], math.prod(x.shape[2:]), 1))
        return self.reshape(self._one("LRN", [image], image, size=size, **numbers), shape.shape)

    def softmax(self, x: Node, axis: int) -> Node:
        return self._one("Softmax", [x], _SHAPES.softmax(x, axis), axis=axis)

    def log_softmax(self, x: Node, axis: int, least: float) -> Node:
        return log_of_softmax(self, x, axis, least)

    def standardize(self, x: Node, eps: float) -> tuple[Node, Node, Node]:
        return standardized(self, x, eps)

    def affine(self, x: Node, scale: Node, shift: Node) -> Node:
        return self.add(self.mul(x, scale), shift)

    def uniform(self, shape: Shape) -> Node:
        if not shape:  # an attribute cannot be an empty list
            return self.reshape(self.uniform((1,)), ())
        seed = float(self._rng.integers(1 << 24))  # the attribute is a float32
        shapes = [_SHAPES.uniform(shape).shape]
        (numbers,) = self.graph.record("RandomUniform", [], shapes, shape=list(shape), seed=seed)
        # Some generators, CUDA's among them, can give 1.
        return self._one("Min", [numbers, self.constant(BELOW_ONE)], numbers)


def _operands(x: Node, weight: Node, bias: Node | None) -> list[Node]:
    return [x, weight] if bias is None else [x, weight, bias]
