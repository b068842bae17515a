"""Pooling over Caffe's windows in torch.

Where torch has windows like that, its own pooling is called as it is; else the image is padded before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ristretto_cli.backends.torch_functions import Tensor
from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Array, PoolGeometry, Shape

LOWEST = float(np.finfo(np.float32).min)  # Caffe's -FLT_MAX
_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@dataclass(frozen=True)
class _Plan:
    """The settings for pooling an image, one entry per spatial axis.

    ceil: torch's ceil_mode, with which its windows are Caffe's; None: there is no such mode, and the image is padded by
    before and after. outside: the number of windows entirely after the image. cells: the divisors of averages,
    (1, 1, H', W').
    """

    ceil: bool | None
    before: Shape
    after: Shape
    outside: Shape
    cells: Array


class PoolTensors:
    """The pooling primitives of TorchOps."""

    def max_pool(self, x: Tensor, geometry: PoolGeometry) -> Tensor:
        plan = _plan(tuple(x.shape[2:]), geometry)
        pool = _MAX[_axes(x)]
        if plan.ceil is not None:
            return pool(x, geometry.kernel, geometry.stride, geometry.pad, ceil_mode=plan.ceil)
        top = pool(_border(x, plan.before, plan.after, -math.inf), geometry.kernel, geometry.stride)
        return _border(top, (0,) * len(geometry.kernel), plan.outside, LOWEST)

    def max_pool_with_index(self, x: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor]:
        plan = _plan(tuple(x.shape[2:]), geometry)
        pool, none = _MAX[_axes(x)], (0,) * len(geometry.kernel)
        if plan.ceil is not None:
            settings = {"ceil_mode": plan.ceil, "return_indices": True}
            top, places = pool(x, geometry.kernel, geometry.stride, geometry.pad, **settings)
            return top, places.to(torch.float32)
        bordered = _border(x, plan.before, plan.after, -math.inf)
        top, places = pool(bordered, geometry.kernel, geometry.stride, return_indices=True)
        places = _moved(places, bordered.shape[2:], plan.before, x.shape[2:])
        return _border(top, none, plan.outside, LOWEST), _border(places, none, plan.outside, -1.0)

    def ave_pool(self, x: Tensor, geometry: PoolGeometry) -> Tensor:
        if geometry.kernel == tuple(x.shape[2:]) and not any(geometry.pad):
            return x.mean(tuple(range(2, x.dim())), keepdim=True)
        plan = _plan(tuple(x.shape[2:]), geometry)
        if _axes(x) == 1:  # torch has no divisor_override for one axis
            kernel, stride, pad = (1, *geometry.kernel), (1, *geometry.stride), (0, *geometry.pad)
            return self.ave_pool(x.unsqueeze(2), PoolGeometry(kernel, stride, pad, geometry.ceil)).squeeze(2)
        pool: Any = F.avg_pool2d if _axes(x) == 2 else F.avg_pool3d
        if plan.ceil is not None:
            return pool(x, geometry.kernel, geometry.stride, geometry.pad, ceil_mode=plan.ceil)
        bordered = _border(x, plan.before, plan.after, 0.0)
        sums = pool(bordered, geometry.kernel, geometry.stride, divisor_override=1)
        sums = _border(sums, (0,) * len(geometry.kernel), plan.outside, 0.0)
        # Caffe divides a sum of nothing by the count of cells, which may be 0 or below: NaN, or 0.
        return sums / torch.from_numpy(plan.cells.copy()).to(x.device) + 0.0


def _axes(x: Tensor) -> int:
    axes = x.dim() - 2
    if axes not in _MAX:
        raise LayerError(f"pooling with torch supports 1 to 3 spatial axes, not {axes}")
    return int(axes)


@lru_cache(maxsize=512)
def _plan(extent: Shape, geometry: PoolGeometry) -> _Plan:
    windows = geometry.pooled(extent)
    axes = list(zip(extent, windows, geometry.kernel, geometry.stride, geometry.pad, strict=True))
    inside = [sum(i * s < n + p for i in range(w)) for n, w, _, s, p in axes]
    cells = np.ones((1, 1) + (1,) * len(axes), np.float32)
    for number, (n, w, k, s, p) in enumerate(axes):
        along = [1] * cells.ndim
        along[2 + number] = w
        cells = cells * np.array([min(i * s + k, n + 2 * p) - i * s for i in range(w)], np.float32).reshape(along)
    own = None
    if all(2 * p <= k for _, _, k, _, p in axes):
        modes = (mode for mode in (False, True) if _of_torch(axes, mode) == windows)
        own = next(modes, None)
    after = tuple(max((i - 1) * s + k - p - n, 0) for i, (n, _, k, s, p) in zip(inside, axes, strict=True))
    outside = tuple(w - i for i, (_, w, _, _, _) in zip(inside, axes, strict=True))
    return _Plan(own, geometry.pad, after, outside, cells)


def _of_torch(axes: Sequence[Sequence[int]], ceil: bool) -> Shape:
    """The number of windows that torch computes."""
    found = []
    for n, _, k, s, p in axes:
        count = (n + 2 * p - k + (s - 1 if ceil else 0)) // s + 1
        found.append(count - (ceil and (count - 1) * s >= n + p))
    return tuple(found)


def _border(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """x padded at the ends of each spatial axis."""
    if not any(before) and not any(after):
        return x
    ends = [end for pair in reversed(list(zip(before, after, strict=True))) for end in pair]
    return F.pad(x, ends, value=value)


def _moved(places: Tensor, extent: Sequence[int], before: Sequence[int], inner: Sequence[int]) -> Tensor:
    """Places in planes of an extent as places in the planes `inner`, which begin `before` inside of these."""
    found, below = 0, 1
    for n, b, m in reversed(list(zip(extent, before, inner, strict=True))):
        found = found + (places % n - b) * below
        places = torch.div(places, n, rounding_mode="floor")
        below *= m
    return torch.as_tensor(found).to(torch.float32)
