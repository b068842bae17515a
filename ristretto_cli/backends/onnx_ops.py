"""The backend that records each primitive as nodes of an ONNX graph.

Quantization and saturation are recorded as marks, see onnx_marks: passes rewrite them, and `lower` expands the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
from onnx import TensorProto

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.onnx_graph import Graph, Tensor, conv_attributes
from ristretto_cli.backends.onnx_regions import RegionNodes
from ristretto_cli.backends.shapes import ShapeOps, Sized, checked_axes
from ristretto_cli.ops import AnyArray, ConvGeometry, Floats, Grid, Shape, log_of_softmax, standardized

_SHAPES = ShapeOps()
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


class OnnxOps(RegionNodes):
    """`Ops` that build `graph`. Shapes, and what is refused, are those of ShapeOps.

    rng: where the seeds of random nodes come from; the same one gives the same numbers in each session.
    """

    def __init__(self, rng: np.random.Generator | None = None, graph: Graph | None = None) -> None:
        super().__init__(graph)
        self._rng = np.random.default_rng(0) if rng is None else rng

    def input(self, name: str, shape: Shape) -> Tensor:
        """A value that is fed to the model under this name."""
        return self.graph.input(name, shape)

    def scope(self, name: str) -> AbstractContextManager[None]:
        return self.graph.scope(name)

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None, name: str = "") -> Tensor:
        """name: what the array is called in the model; small constants without a name are shared."""
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            array = np.asarray(array, dtype=np.float32)
        constant = self.graph.constant(array, name)
        if grid is not None:
            self.graph.grids[constant.name] = grid
        return constant

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Add", [a, b], _SHAPES.add(a, b))

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Sub", [a, b], _SHAPES.sub(a, b))

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Mul", [a, b], _SHAPES.mul(a, b))

    def div(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Div", [a, b], _SHAPES.div(a, b))

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Max", [a, b], _SHAPES.maximum(a, b))

    def pow(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Pow", [a, b], _SHAPES.pow(a, b))

    def abs(self, x: Tensor) -> Tensor:
        return self._one("Abs", [x], _SHAPES.abs(x))

    def exp(self, x: Tensor) -> Tensor:
        return self._one("Exp", [x], _SHAPES.exp(x))

    def log(self, x: Tensor) -> Tensor:
        return self._one("Log", [x], _SHAPES.log(x))

    def log2(self, x: Tensor) -> Tensor:
        shape = _SHAPES.log2(x)
        wide = self._one("Cast", [x], shape, to=TensorProto.DOUBLE)
        natural = self._one("Log", [wide], shape)
        # In double precision the error of this factor is far below a float32's last place.
        factor = self.graph.constant(np.asarray(1 / np.log(2.0)))
        return self._one("Cast", [self._one("Mul", [natural, factor], shape)], shape, to=TensorProto.FLOAT)

    def sqrt(self, x: Tensor) -> Tensor:
        return self._one("Sqrt", [x], _SHAPES.sqrt(x))

    def floor(self, x: Tensor) -> Tensor:
        return self._one("Floor", [x], _SHAPES.floor(x))

    def round(self, x: Tensor) -> Tensor:
        return self._one("Round", [x], _SHAPES.round(x))

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        return marks.saturate(self.graph, x, low, high)

    def quantize_fixed(self, x: Tensor, grid: Grid) -> Tensor:
        return marks.quantize_fixed(self.graph, x, grid)

    def quantize_float(self, x: Tensor, floats: Floats) -> Tensor:
        return marks.quantize_float(self.graph, x, floats)

    def straight_through(self, x: Tensor, trimmed: Tensor, within: tuple[float, float] | None = None) -> Tensor:
        return trimmed

    def map_gradient(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return x

    def detach(self, x: Tensor) -> Tensor:
        return x

    def relu(self, x: Tensor) -> Tensor:
        return self._one("Relu", [x], _SHAPES.relu(x))

    def softplus(self, x: Tensor) -> Tensor:
        return self._one("Softplus", [x], _SHAPES.softplus(x))

    def sigmoid(self, x: Tensor) -> Tensor:
        return self._one("Sigmoid", [x], _SHAPES.sigmoid(x))

    def tanh(self, x: Tensor) -> Tensor:
        return self._one("Tanh", [x], _SHAPES.tanh(x))

    def equal(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Equal", [a, b], _SHAPES.equal(a, b))

    def less(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Less", [a, b], _SHAPES.less(a, b))

    def greater_equal(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("GreaterOrEqual", [a, b], _SHAPES.greater_equal(a, b))

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return self._one("Where", [condition, a, b], _SHAPES.where(condition, a, b))

    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        # With allowzero, an extent of 0 means 0, and not the input's extent.
        return self._one("Reshape", [x, self._ints(shape)], _SHAPES.reshape(x, shape), allowzero=1)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        shape = _SHAPES.transpose(x, axes)
        return self._one("Transpose", [x], shape, perm=list(axes)) if axes else x

    def expand(self, x: Tensor, shape: Shape) -> Tensor:
        return self._one("Expand", [x, self._ints(shape)], _SHAPES.expand(x, shape))

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return self._one("Concat", list(xs), _SHAPES.concat(xs, axis), axis=axis)

    def slice(self, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
        bounds = [self._ints([start]), self._ints([stop]), self._ints([axis])]
        return self._one("Slice", [x, *bounds], _SHAPES.slice(x, axis, start, stop))

    def pad(self, x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
        borders = self._ints([*before, *after])
        return self._one("Pad", [x, borders, self.constant(value)], _SHAPES.pad(x, before, after), mode="constant")

    def gather(self, x: Tensor, indices: Tensor, axis: int) -> Tensor:
        shape = _SHAPES.gather(x, indices, axis)
        (axis,) = checked_axes(x.shape, [axis])
        # ONNX's Gather counts negative indices from the end, and a cast of NaN or infinity has no defined result:
        # all of these become an index that is out of range.
        beyond = self.constant(float(2**31))
        known = self.where(self.less(self.constant(-1.0), indices), indices, beyond)
        whole = self._one("Cast", [self._one("Min", [known, beyond], indices)], indices, to=TensorProto.INT64)
        return self._one("Gather", [x, whole], shape, axis=axis)

    def unfold(self, x: Tensor, kernel: Shape, geometry: ConvGeometry) -> Tensor:
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

    def sum(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return self._one("ReduceSum", [x, self._ints(axes)], _SHAPES.sum(x, axes), noop_with_empty_axes=1)

    def mean(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return self._one("ReduceMean", [x, self._ints(axes)], _SHAPES.mean(x, axes), noop_with_empty_axes=1)

    def max(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return self._one("ReduceMax", [x, self._ints(axes)], _SHAPES.max(x, axes), noop_with_empty_axes=1)

    def top_k(self, x: Tensor, k: int, axis: int) -> tuple[Tensor, Tensor]:
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

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._one("MatMul", [a, b], _SHAPES.matmul(a, b))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._one("Gemm", _operands(x, weight, bias), _SHAPES.linear(x, weight, bias), transB=1)

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
        operands, attributes = _operands(x, weight, bias), conv_attributes(weight.shape[2:], geometry)
        return self._one("Conv", operands, _SHAPES.conv(x, weight, bias, geometry), **attributes)

    def deconv(self, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
        operands, attributes = _operands(x, weight, bias), conv_attributes(weight.shape[2:], geometry)
        return self._one("ConvTranspose", operands, _SHAPES.deconv(x, weight, bias, geometry), **attributes)

    def lrn(self, x: Tensor, *, size: int, alpha: float, beta: float, k: float) -> Tensor:
        shape = _SHAPES.lrn(x, size=size, alpha=alpha, beta=beta, k=k)
        numbers = {"alpha": float(alpha), "beta": float(beta), "bias": float(k)}
        if len(x.shape) == 4:
            return self._one("LRN", [x], shape, size=size, **numbers)
        # onnxruntime has LRN for images only.
        image = self.reshape(x, (*x.shape[:2], math.prod(x.shape[2:]), 1))
        return self.reshape(self._one("LRN", [image], image, size=size, **numbers), shape.shape)

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        return self._one("Softmax", [x], _SHAPES.softmax(x, axis), axis=axis)

    def log_softmax(self, x: Tensor, axis: int, least: float) -> Tensor:
        return log_of_softmax(self, x, axis, least)

    def standardize(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return standardized(self, x, eps)

    def affine(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.add(self.mul(x, scale), shift)

    def uniform(self, shape: Shape) -> Tensor:
        if not shape:  # an attribute cannot be an empty list
            return self.reshape(self.uniform((1,)), ())
        seed = float(self._rng.integers(1 << 24))  # the attribute is a float32
        shapes = [_SHAPES.uniform(shape).shape]
        (numbers,) = self.graph.record("RandomUniform", [], shapes, shape=list(shape), seed=seed)
        # Some generators, CUDA's among them, can give 1.
        return self._one("Min", [numbers, self.constant(BELOW_ONE)], numbers)


def _operands(x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    return [x, weight] if bias is None else [x, weight, bias]
