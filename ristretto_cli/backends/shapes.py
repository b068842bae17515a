"""The backend that computes only shapes: for each primitive, checks of its arguments and the shape of its result.

Each rule is here only; other backends call this one before they compute or record anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.ops import (
    MAX_EXACT_INT,
    AnyArray,
    ConvGeometry,
    Floats,
    Grid,
    PoolGeometry,
    Shape,
    Value,
    broadcast,
    show,
)

# Caffe counts the elements of a blob in an int.
MAX_ELEMENTS = 2**31 - 1


@dataclass(frozen=True)
class Sized:
    """A value of which only the shape is known."""

    shape: Shape


class ShapeOps:
    """`Ops` that compute only shapes. Takes values of any backend, since it reads only their shapes.

    LayerError where operands do not fit each other or the settings.
    """

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """No effect: nothing is recorded."""
        yield

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None) -> Sized:
        return sized(np.shape(array))

    def add(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def sub(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def mul(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def div(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def maximum(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def pow(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def abs(self, x: Value) -> Sized:
        return sized(x.shape)

    def exp(self, x: Value) -> Sized:
        return sized(x.shape)

    def log(self, x: Value) -> Sized:
        return sized(x.shape)

    def log2(self, x: Value) -> Sized:
        return sized(x.shape)

    def sqrt(self, x: Value) -> Sized:
        return sized(x.shape)

    def floor(self, x: Value) -> Sized:
        return sized(x.shape)

    def round(self, x: Value) -> Sized:
        return sized(x.shape)

    def clip(self, x: Value, low: float, high: float) -> Sized:
        return sized(x.shape)

    def quantize_fixed(self, x: Value, grid: Grid) -> Sized:
        return sized(x.shape)

    def quantize_float(self, x: Value, floats: Floats) -> Sized:
        return sized(x.shape)

    def straight_through(self, x: Value, trimmed: Value, within: tuple[float, float] | None = None) -> Sized:
        return sized(trimmed.shape)

    def map_gradient(self, x: Value, function: Callable[[Value], Value]) -> Sized:
        return sized(x.shape)

    def detach(self, x: Value) -> Sized:
        return sized(x.shape)

    def relu(self, x: Value) -> Sized:
        return sized(x.shape)

    def softplus(self, x: Value) -> Sized:
        return sized(x.shape)

    def sigmoid(self, x: Value) -> Sized:
        return sized(x.shape)

    def tanh(self, x: Value) -> Sized:
        return sized(x.shape)

    def equal(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def less(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def greater_equal(self, a: Value, b: Value) -> Sized:
        return _elementwise(a, b)

    def where(self, condition: Value, a: Value, b: Value) -> Sized:
        return _elementwise(condition, a, b)

    def reshape(self, x: Value, shape: Shape) -> Sized:
        shape = tuple(shape)
        if min(shape, default=0) < 0 or math.prod(shape) != math.prod(x.shape):
            raise LayerError(f"{show(x.shape)} cannot be reshaped to {show(shape)}")
        return sized(shape)

    def transpose(self, x: Value, axes: Sequence[int]) -> Sized:
        if sorted(axes) != list(range(len(x.shape))):
            raise LayerError(f"{list(axes)} is not a permutation of the axes of {show(x.shape)}")
        return sized(tuple(x.shape[axis] for axis in axes))

    def expand(self, x: Value, shape: Shape) -> Sized:
        if _broadcast(x.shape, tuple(shape)) != tuple(shape):
            raise LayerError(f"{show(x.shape)} cannot be expanded to {show(shape)}")
        return sized(tuple(shape))

    def concat(self, xs: Sequence[Value], axis: int) -> Sized:
        if not xs:
            raise LayerError("there is nothing to concatenate")
        shapes = [x.shape for x in xs]
        (axis,) = checked_axes(shapes[0], [axis])
        if any(_without(shape, axis) != _without(shapes[0], axis) for shape in shapes):
            given = ", ".join(map(show, shapes))
            raise LayerError(f"{given} cannot be joined on axis {axis}: they differ on another axis")
        return sized(_with(shapes[0], axis, sum(shape[axis] for shape in shapes)))

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Sized:
        (axis,) = checked_axes(x.shape, [axis])
        if not 0 <= start <= stop <= x.shape[axis]:
            raise LayerError(f"{start}:{stop} is out of range for axis {axis} of {show(x.shape)}")
        return sized(_with(x.shape, axis, stop - start))

    def pad(self, x: Value, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Sized:
        if not len(before) == len(after) == len(x.shape) or min([0, *before, *after]) < 0:
            raise LayerError(f"{show(x.shape)} cannot be padded by {list(before)} and {list(after)}")
        return sized(tuple(b + n + a for b, n, a in zip(before, x.shape, after, strict=True)))

    def gather(self, x: Value, indices: Value, axis: int) -> Sized:
        (axis,) = checked_axes(sized(x.shape).shape, [axis])
        return sized((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def unfold(self, x: Value, kernel: Shape, geometry: ConvGeometry) -> Sized:
        # It reads the same elements as a filter over all channels.
        one = Sized((1, *x.shape[1:2], *kernel))
        extent = self.conv(x, one, None, replace(geometry, group=1)).shape[2:]
        sized((*x.shape[:2], *(n + 2 * p for n, p in zip(x.shape[2:], geometry.pad, strict=True))))
        return sized((x.shape[0], x.shape[1] * math.prod(kernel), *extent))

    def sum(self, x: Value, axes: Sequence[int]) -> Sized:
        return _reduced(x, axes)

    def mean(self, x: Value, axes: Sequence[int]) -> Sized:
        return _reduced(x, axes)

    def max(self, x: Value, axes: Sequence[int]) -> Sized:
        return _reduced(x, axes)

    def top_k(self, x: Value, k: int, axis: int) -> tuple[Sized, Sized]:
        (axis,) = checked_axes(x.shape, [axis])
        if not 1 <= k <= x.shape[axis]:
            raise LayerError(f"the top {k} of axis {axis} of {show(x.shape)} cannot be taken")
        return (sized(_with(x.shape, axis, k)),) * 2

    def matmul(self, a: Value, b: Value) -> Sized:
        if min(len(a.shape), len(b.shape)) < 2 or a.shape[-1] != b.shape[-2]:
            raise LayerError(f"matrices {show(a.shape)} and {show(b.shape)} cannot be multiplied")
        return sized((*_broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))

    def linear(self, x: Value, weight: Value, bias: Value | None) -> Sized:
        if len(x.shape) != 2 or len(weight.shape) != 2 or x.shape[1] != weight.shape[1]:
            raise LayerError(f"weights {show(weight.shape)} do not fit an input {show(x.shape)}")
        _check_bias(bias, weight.shape[0])
        return sized((x.shape[0], weight.shape[0]))

    def conv(self, x: Value, weight: Value, bias: Value | None, geometry: ConvGeometry) -> Sized:
        kernel = _check_filter(x, weight, geometry)
        channels, filters, group = x.shape[1], weight.shape[0], geometry.group
        if group < 1 or channels % group or filters % group:
            raise LayerError(f"{channels} channels to {filters} cannot be split into {group} groups")
        if weight.shape[1] != channels // group:
            raise LayerError(f"weights {show(weight.shape)} in {group} groups do not fit {show(x.shape)}")
        _check_bias(bias, filters)
        extent = geometry.convolved(x.shape[2:], kernel)
        if min(extent) < 1:
            raise LayerError(
                f"kernel {show(kernel)} with dilation {show(geometry.dilation)} is larger than the input "
                f"{show(x.shape[2:])} with padding {show(geometry.pad)}"
            )
        return sized((x.shape[0], filters, *extent))

    def deconv(self, x: Value, weight: Value, bias: Value | None, geometry: ConvGeometry) -> Sized:
        kernel = _check_filter(x, weight, geometry)
        channels, group = x.shape[1], geometry.group
        filters = weight.shape[1] * group
        if group < 1 or channels % group:
            raise LayerError(f"{channels} channels cannot be split into {group} groups")
        if weight.shape[0] != channels:
            raise LayerError(f"weights {show(weight.shape)} in {group} groups do not fit {show(x.shape)}")
        _check_bias(bias, filters)
        extent = geometry.deconvolved(x.shape[2:], kernel)
        if min(extent) < 1:
            raise LayerError(f"padding {show(geometry.pad)} removes the whole output of the deconvolution")
        return sized((x.shape[0], filters, *extent))

    def max_pool(self, x: Value, geometry: PoolGeometry) -> Sized:
        return _pooled(x, geometry)

    def max_pool_with_index(self, x: Value, geometry: PoolGeometry) -> tuple[Sized, Sized]:
        return (_pooled(x, geometry),) * 2

    def ave_pool(self, x: Value, geometry: PoolGeometry) -> Sized:
        return _pooled(x, geometry)

    def lrn(self, x: Value, *, size: int, alpha: float, beta: float, k: float) -> Sized:
        if len(x.shape) < 2:
            raise LayerError(f"there are no channels in an input {show(x.shape)}")
        if size < 1 or size % 2 == 0:
            raise LayerError(f"local_size must be odd, not {size}")
        # Caffe and onnxruntime sum over an image that is padded by that many channels.
        sized((1, x.shape[1] + size - 1, *x.shape[2:]))
        return sized(x.shape)

    def softmax(self, x: Value, axis: int) -> Sized:
        checked_axes(x.shape, [axis])
        return sized(x.shape)

    def log_softmax(self, x: Value, axis: int, min_value: float) -> Sized:
        return self.softmax(x, axis)

    def standardize(self, x: Value, eps: float) -> tuple[Sized, Sized, Sized]:
        if len(x.shape) < 2:
            raise LayerError(f"there are no channels in an input {show(x.shape)}")
        each = Sized((1, x.shape[1], *(1 for _ in x.shape[2:])))
        return sized(x.shape), each, each

    def affine(self, x: Value, scale: Value, shift: Value) -> Sized:
        return _elementwise(_elementwise(x, scale), shift)

    def resize(self, x: Value, extent: Sequence[int]) -> Sized:
        return _planes(x, extent)

    def unpool(self, x: Value, places: Value, extent: Sequence[int]) -> Sized:
        if x.shape != places.shape:
            raise LayerError(f"places {show(places.shape)} do not fit values {show(x.shape)}")
        if math.prod(extent) > MAX_EXACT_INT:
            raise LayerError(f"a plane of {show(extent)} has too many places")
        return _planes(x, extent)

    def roi_pool(self, x: Value, rois: Value, *, extent: Sequence[int], spatial_scale: float) -> Sized:
        if len(rois.shape) != 2 or rois.shape[1] != 5:
            raise LayerError(f"regions must be (R, 5), not {show(rois.shape)}")
        return sized((rois.shape[0], *_planes(x, extent).shape[1:]))

    def nms(
        self, boxes: Value, scores: Value, *, top_k: int, min_score: float, max_overlap: float
    ) -> tuple[Sized, Sized, Sized]:
        fits = len(scores.shape) == 3 and len(boxes.shape) == 4 and boxes.shape[1] in (1, scores.shape[1])
        if not fits or boxes.shape != (scores.shape[0], boxes.shape[1], scores.shape[2], 4):
            raise LayerError(f"boxes {show(boxes.shape)} do not fit scores {show(scores.shape)}")
        if top_k < 1:
            raise LayerError(f"the top {top_k} cannot be taken")
        batch, classes, count = scores.shape
        kept = min(top_k, count)
        sized((batch, classes, count, 4))  # the boxes are repeated for each class
        return (sized((batch, classes, kept)),) * 3

    def uniform(self, shape: Shape) -> Sized:
        return sized(tuple(shape))


def sized(shape: Sequence[int]) -> Sized:
    """A value of this shape; LayerError if it has more elements than Caffe can count."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise LayerError(f"a blob of shape {show(shape)} has too many elements")
    return Sized(tuple(shape))


def checked_axes(shape: Shape, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes counted from the front; LayerError if one is out of range or given twice."""
    count = len(shape)
    if any(not -count <= axis < count for axis in axes):
        raise LayerError(f"axis {', '.join(map(str, axes))} is out of range for {show(shape)}")
    found = tuple(axis % count for axis in axes)
    if len(set(found)) != len(found):
        raise LayerError(f"axes {', '.join(map(str, axes))} of {show(shape)} contain an axis twice")
    return found


def _planes(x: Value, extent: Sequence[int]) -> Sized:
    """Images x with other extents."""
    if len(x.shape) != 4 or len(extent) != 2:
        raise LayerError(f"expected 4 axes (N, C, H, W), got {show(x.shape)}")
    if min(extent) < 1:
        raise LayerError(f"images of {show(extent)} have an extent below 1")
    return sized((*x.shape[:2], *extent))


def _elementwise(*values: Value) -> Sized:
    return sized(_broadcast(*(value.shape for value in values)))


def _broadcast(*shapes: Shape) -> Shape:
    try:
        return broadcast(*shapes)
    except ValueError:
        raise LayerError(f"shapes {' and '.join(map(show, shapes))} do not fit each other") from None


def _without(shape: Shape, axis: int) -> Shape | None:
    return (*shape[:axis], *shape[axis + 1 :]) if axis < len(shape) else None


def _with(shape: Shape, axis: int, extent: int) -> Shape:
    return (*shape[:axis], extent, *shape[axis + 1 :])


def _reduced(x: Value, axes: Sequence[int]) -> Sized:
    gone = checked_axes(x.shape, axes)
    return sized(tuple(1 if axis in gone else n for axis, n in enumerate(x.shape)))


def _check_filter(x: Value, weight: Value, geometry: ConvGeometry) -> Shape:
    """The kernel's extents; LayerError unless all settings are valid, with one entry per spatial axis of x."""
    kernel, axes = sized(weight.shape).shape[2:], len(x.shape) - 2
    stride, pad, dilation = geometry.stride, geometry.pad, geometry.dilation
    if axes < 1 or len(weight.shape) != len(x.shape):
        raise LayerError(f"weights {show(weight.shape)} do not fit an input {show(x.shape)}")
    if not len(stride) == len(pad) == len(dilation) == axes:
        raise LayerError(f"stride, pad and dilation must have one entry per spatial axis of {show(x.shape)}")
    if min([*kernel, *stride, *dilation]) < 1 or min(pad) < 0:
        raise LayerError("kernel, stride and dilation must be 1 or more, pad 0 or more")
    return kernel


def _check_bias(bias: Value | None, filters: int) -> None:
    if bias is not None and bias.shape != (filters,):
        raise LayerError(f"a bias {show(bias.shape)} does not fit {filters} outputs")


def _pooled(x: Value, geometry: PoolGeometry) -> Sized:
    kernel, stride, pad = geometry.kernel, geometry.stride, geometry.pad
    if len(x.shape) < 3 or not len(kernel) == len(stride) == len(pad) == len(x.shape) - 2:
        raise LayerError(f"pooling {show(kernel)} does not fit an input {show(x.shape)}")
    if min([*kernel, *stride]) < 1 or min(pad) < 0:
        raise LayerError("kernel and stride must be 1 or more, pad 0 or more")
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise LayerError(f"padding {show(pad)} must be smaller than the kernel {show(kernel)}")
    extent = geometry.pooled(x.shape[2:])
    if min(extent) < 1:
        raise LayerError(f"kernel {show(kernel)} is larger than the input {show(x.shape[2:])} with padding {show(pad)}")
    return sized((*x.shape[:2], *extent))
