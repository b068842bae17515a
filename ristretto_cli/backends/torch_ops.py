"""The torch backend: computes eagerly, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ristretto_cli.backends.torch_functions import (
    AcrossChannels,
    Batch,
    Larger,
    MappedGradient,
    Passing,
    Root,
    ScaledBatch,
    Tensor,
    learns,
)
from ristretto_cli.backends.torch_regions import RegionTensors
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.formats.fixed import stepwise
from ristretto_cli.formats.minifloat import floatwise
from ristretto_cli.ops import AnyArray, ConvGeometry, Floats, Grid, Shape

_ONE, _ZERO = np.float32(1).tobytes(), np.float32(0).tobytes()
_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_DECONV: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class TorchOps(RegionTensors):
    """`Ops` on float32 tensors of a device. Shapes are not checked: ShapeOps did that when the net was built.

    rng: seeds the random numbers. Gradients at kinks and ties are those of Caffe's layers.
    """

    def __init__(self, rng: np.random.Generator, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._random = torch.Generator(self._device).manual_seed(int(rng.integers(2**63)))
        self._numbers: dict[bytes, Tensor] = {}
        self._scopes: list[str] = []

    def scope(self, name: str) -> AbstractContextManager[None]:
        return _Scope(self._scopes, name)

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None) -> Tensor:
        if isinstance(array, np.ndarray) and array.ndim:
            ready = np.ascontiguousarray(array, np.float32)
            # torch warns of read-only arrays, although nothing writes to them here.
            return torch.from_numpy(ready if ready.flags.writeable else ready.copy()).to(self._device)
        key = np.float32(array).tobytes()  # 0.0 and -0.0 are equal, but differ
        if key not in self._numbers:
            self._numbers[key] = torch.tensor(float(array), dtype=torch.float32, device=self._device)
        return self._numbers[key]

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.add(a, b)

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.sub(a, b)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.mul(a, b)

    def div(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.div(a, b)

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:
        return Larger.apply(a, b) if learns(a, b) else torch.maximum(a, b)

    def pow(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.pow(a, b)

    def abs(self, x: Tensor) -> Tensor:
        return torch.abs(x)

    def exp(self, x: Tensor) -> Tensor:
        return torch.exp(x)

    def log(self, x: Tensor) -> Tensor:
        return torch.log(x)

    def log2(self, x: Tensor) -> Tensor:
        return torch.log2(x.double()).float()

    def sqrt(self, x: Tensor) -> Tensor:
        return Root.apply(x) if learns(x) else torch.sqrt(x)

    def floor(self, x: Tensor) -> Tensor:
        return torch.floor(x)

    def round(self, x: Tensor) -> Tensor:
        return torch.round(x)

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        # torch's clamp returns NaN for NaN.
        return torch.clamp(torch.nan_to_num(x, nan=math.inf, posinf=math.inf, neginf=-math.inf), low, high)

    def quantize_fixed(self, x: Tensor, grid: Grid) -> Tensor:
        return stepwise(self, x, grid, self.round)

    def quantize_float(self, x: Tensor, floats: Floats) -> Tensor:
        return floatwise(self, x, floats)

    def straight_through(self, x: Tensor, trimmed: Tensor, within: tuple[float, float] | None = None) -> Tensor:
        return Passing.apply(x, trimmed, within) if learns(x) else trimmed

    def map_gradient(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return MappedGradient.apply(x, function) if learns(x) else x

    def detach(self, x: Tensor) -> Tensor:
        return x.detach()

    def relu(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def softplus(self, x: Tensor) -> Tensor:
        return F.softplus(x)

    def sigmoid(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def tanh(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def equal(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.eq(a, b)

    def less(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.lt(a, b)

    def greater_equal(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.ge(a, b)

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if not a.dim() and not b.dim() and a is self._numbers.get(_ONE) and b is self._numbers.get(_ZERO):
            return condition.to(torch.float32)  # torch.where is slow for random conditions
        return torch.where(condition, a, b)

    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        return x.reshape(shape)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(*axes) if axes else x

    def expand(self, x: Tensor, shape: Shape) -> Tensor:
        return x.expand(shape)

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(tuple(xs), axis)

    def slice(self, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
        return x.narrow(axis, start, stop - start)

    def pad(self, x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
        ends = [end for pair in reversed(list(zip(before, after, strict=True))) for end in pair]
        return F.pad(x, ends, value=value)

    def gather(self, x: Tensor, indices: Tensor, axis: int) -> Tensor:
        axis %= x.dim()
        extent = x.shape[axis]
        # NaN is neither.
        if not bool(((indices > -1) & (indices < extent)).all()):
            raise RistrettoError(
                f"an index into {extent} entries is negative, too large or not a number",
                where=f'layer "{"/".join(self._scopes)}"' if self._scopes else None,
                hint="Check the data that it is computed from.",
            )
        picked = x.index_select(axis, indices.detach().reshape(-1).long())
        return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    def unfold(self, x: Tensor, kernel: Shape, geometry: ConvGeometry) -> Tensor:
        axes, stride, dilation = range(len(kernel)), geometry.stride, geometry.dilation
        extent = geometry.convolved(tuple(x.shape[2:]), kernel)
        x = self.pad(x, [0, 0, *geometry.pad], [0, 0, *geometry.pad])
        channels = x.shape[1]
        for axis in reversed(axes):  # from the last, so the other axes keep their numbers
            cells = np.arange(kernel[axis])[:, None] * dilation[axis] + np.arange(extent[axis]) * stride[axis]
            places = torch.from_numpy(cells.reshape(-1)).to(x.device)
            x = x.index_select(axis + 2, places).unflatten(axis + 2, cells.shape)
        x = x.permute(0, 1, *(2 * axis + 2 for axis in axes), *(2 * axis + 3 for axis in axes))
        return x.reshape(x.shape[0], channels * math.prod(kernel), *x.shape[2 + len(kernel) :])

    def sum(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return torch.sum(x, tuple(axes), keepdim=True) if len(axes) else x

    def mean(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return torch.mean(x, tuple(axes), keepdim=True) if len(axes) else x

    def max(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return torch.amax(x, tuple(axes), keepdim=True) if len(axes) else x

    def top_k(self, x: Tensor, k: int, axis: int) -> tuple[Tensor, Tensor]:
        # A stable sort of the reversed axis puts the larger index first among equals.
        values, places = torch.sort(x.flip(axis), dim=axis, descending=True, stable=True)
        index = (x.shape[axis] - 1 - places.narrow(axis, 0, k)).to(torch.float32)
        return values.narrow(axis, 0, k), index

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
        return _of(_CONV, x)(x, weight, bias, geometry.stride, geometry.pad, geometry.dilation, geometry.group)

    def deconv(self, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
        return _of(_DECONV, x)(x, weight, bias, geometry.stride, geometry.pad, 0, geometry.group, geometry.dilation)

    def lrn(self, x: Tensor, *, size: int, alpha: float, beta: float, k: float) -> Tensor:
        return AcrossChannels.apply(x, size, alpha, beta, k)

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        return torch.softmax(x, axis)

    def log_softmax(self, x: Tensor, axis: int, min_value: float) -> Tensor:
        exact = torch.log_softmax(x, axis)
        with torch.no_grad():
            # NaN stays; the logarithm is that of a float32.
            limited = exact.clamp(min=float(np.log(np.float32(min_value))))
        return self.straight_through(exact, limited)

    def standardize(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        channels, count = x.shape[1], x.numel() // x.shape[1]
        # With momentum 1 the moving averages are those of this batch, with the unbiased variance.
        mean, variance = x.new_zeros(channels), x.new_ones(channels)
        made: Any = torch.native_batch_norm(x, None, None, mean, variance, True, 1.0, eps)
        top, own_mean, factor = made
        if learns(x):
            top.made_of = Batch(x, own_mean, factor, eps)  # for a following affine
        variance = variance * ((count - 1) / count) if count > 1 else torch.zeros_like(variance)
        each = (1, channels, *(1 for _ in x.shape[2:]))
        return top, mean.reshape(each), variance.reshape(each)

    def affine(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        batch: Batch | None = getattr(x, "made_of", None)
        if batch is not None and scale.shape == shift.shape and scale.numel() == scale.shape[1 - x.dim()] == x.shape[1]:
            return ScaledBatch.apply(batch.x, scale, shift, x.detach(), batch)
        return torch.mul(x, scale).add_(shift)

    def uniform(self, shape: Shape) -> Tensor:
        return torch.rand(tuple(shape), generator=self._random, device=self._device)


class _Scope(AbstractContextManager[None]):
    """The names of the layers being computed, for messages."""

    def __init__(self, names: list[str], name: str) -> None:
        self._names = names
        self._name = name

    def __enter__(self) -> None:
        self._names.append(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._names.pop()


def _of(functions: dict[int, Any], x: Tensor) -> Any:
    """The function for the number of spatial axes of x."""
    axes = x.dim() - 2
    if axes not in functions:
        raise LayerError(f"convolution with torch supports 1 to 3 spatial axes, not {axes}")
    return functions[axes]
