"""Pooling over Caffe's windows as ONNX nodes.

ONNX's ceil_mode is not used: it places the last window differently from Caffe, and its meaning depends on the
opset. Instead, the padding after the image is chosen so that the windows are Caffe's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from ristretto_cli.backends.onnx_graph import Graph, Tensor
from ristretto_cli.backends.shapes import ShapeOps, Sized
from ristretto_cli.ops import Array, PoolGeometry, Shape, Value

_SHAPES = ShapeOps()
LOWEST = float(np.finfo(np.float32).min)  # Caffe's -FLT_MAX


@dataclass(frozen=True)
class Windows:
    """The windows along one spatial axis.

    cells: the divisors of averages; only the last window can lie entirely after the image, and then its divisor is 0
    or less. real: for each window, the number of its elements that are not padding. inside: the number of windows that
    do not lie entirely after the image. after: the padding that these need after the image.
    """

    cells: tuple[int, ...]
    real: tuple[int, ...]
    inside: int
    after: int

    @property
    def outside(self) -> int:
        """The number of windows entirely after the image."""
        return len(self.cells) - self.inside

    @classmethod
    def of(cls, extent: Shape, geometry: PoolGeometry) -> list[Windows]:
        """The windows of a pooling, axis by axis."""
        each = (extent, geometry.pooled(extent), geometry.kernel, geometry.stride, geometry.pad)
        return [cls._along(*axis) for axis in zip(*each, strict=True)]

    @classmethod
    def _along(cls, extent: int, windows: int, kernel: int, stride: int, pad: int) -> Windows:
        end = extent + 2 * pad  # positions count from the start of the padding
        starts = [i * stride for i in range(windows)]
        cells = tuple(min(start + kernel, end) - start for start in starts)
        real = tuple(min(start + kernel, extent + pad) - max(start, pad) for start in starts)
        inside = sum(start < extent + pad for start in starts)
        fits = inside == (end - kernel) // stride + 1
        after = pad if fits else max((inside - 1) * stride + kernel - extent - pad, 0)
        return cls(cells, real, inside, after)


class PoolNodes:
    """The pooling primitives of OnnxOps, and the helpers with which all primitives record nodes."""

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = Graph() if graph is None else graph

    def max_pool(self, x: Tensor, geometry: PoolGeometry) -> Tensor:
        _SHAPES.max_pool(x, geometry)
        windows, inner, settings = _plan(x.shape, geometry)
        (top,) = self.graph.record("MaxPool", [x], [inner], **settings)
        return self._fill(top, [w.outside for w in windows], LOWEST)

    def max_pool_with_index(self, x: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor]:
        _SHAPES.max_pool(x, geometry)
        windows, inner, settings = _plan(x.shape, geometry)
        top, places = self.graph.record("MaxPool", [x], [inner, inner], **settings)
        # ONNX counts the places through the whole blob, Caffe in each plane.
        plane = self._ints([int(np.prod(x.shape[2:]))])
        index = self._one("Mod", [places, plane], Sized(inner))
        mask = self._one("Cast", [index], Sized(inner), to=TensorProto.FLOAT)
        outside = [w.outside for w in windows]
        return self._fill(top, outside, LOWEST), self._fill(mask, outside, -1.0)

    def ave_pool(self, x: Tensor, geometry: PoolGeometry) -> Tensor:
        shape = _SHAPES.ave_pool(x, geometry).shape
        windows, inner, settings = _plan(x.shape, geometry)
        if all(axis.real == axis.cells == (extent,) for axis, extent in zip(windows, x.shape[2:], strict=True)):
            return self.graph.record("GlobalAveragePool", [x], [shape])[0]
        # With count_include_pad, onnxruntime 1.23 is wrong if the padding differs between the two sides.
        (top,) = self.graph.record("AveragePool", [x], [inner], **settings)
        scale = _rescale(windows)
        if np.any(scale != 1):
            top = self._one("Mul", [top, self.graph.constant(scale)], top)
        # Caffe divides a sum of nothing by the count of cells, which may be below zero.
        top = self._fill(top, [int(w.cells[-1] < 0) for w in windows], 0.0)
        return self._fill(top, [int(w.cells[-1] == 0) for w in windows], float("nan"))

    def _fill(self, x: Tensor, count: Sequence[int], value: float) -> Tensor:
        """x with `count` more windows of this value at the end of each spatial axis."""
        if not any(count):
            return x
        before, after = [0] * (2 + len(count)), [0, 0, *count]
        operands = [x, self._ints(before + after), self.graph.constant(np.float32(value))]
        return self._one("Pad", operands, _SHAPES.pad(x, before, after), mode="constant")

    def _one(self, op: str, inputs: Sequence[Tensor], shape: Value, **attributes: Any) -> Tensor:
        """Record a node with one output, of that value's shape."""
        return self.graph.record(op, inputs, [shape.shape], **attributes)[0]

    def _ints(self, numbers: Sequence[int]) -> Tensor:
        return self.graph.ints(numbers)


def _plan(x: Shape, geometry: PoolGeometry) -> tuple[list[Windows], Shape, dict[str, Any]]:
    """The windows of each axis, the shape of those inside, and the attributes of the node that takes them."""
    windows = Windows.of(x[2:], geometry)
    return (
        windows,
        (*x[:2], *(axis.inside for axis in windows)),
        {
            "kernel_shape": geometry.kernel,
            "strides": geometry.stride,
            "pads": [*geometry.pad, *(axis.after for axis in windows)],
        },
    )


def _rescale(windows: Sequence[Windows]) -> Array:
    """The factors for means over the windows' parts of the image: real / cells, (1, 1, H', W')."""
    scale = np.ones((1, 1) + (1,) * len(windows), np.float64)
    for number, axis in enumerate(windows):
        along = [1] * scale.ndim
        along[2 + number] = axis.inside
        share = np.asarray(axis.real[: axis.inside]) / np.asarray(axis.cells[: axis.inside])
        scale = scale * share.reshape(along)
    return scale.astype(np.float32)
