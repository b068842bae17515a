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
from ristretto_cli.ops import Array, Shape, pooled

LOWEST = float(np.finfo(np.float32).min)  # Caffe's -FLT_MAX
_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@dataclass(frozen=True)
class _Plan:
    """How to pool an image, an entry per spatial axis.

    ceil: torch's ceil_mode, with which its windows are Caffe's; None: there is no such mode, and the image is padded by
    before and after. outside: windows that lie wholly behind the image. cells: what each window counts for an average,
    (1, 1, H', W').
    """

    ceil: bool | None
    before: Shape
    after: Shape
    outside: Shape
    cells: Array


class PoolTensors:
    """The pooling primitives of TorchOps."""

    def max_pool(
        self, x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool
    ) -> Tensor:
        plan = _plan(tuple(x.shape[2:]), tuple(kernel), tuple(stride), tuple(pad), ceil)
        pool = _MAX[_axes(x)]
        if plan.ceil is not None:
            return pool(x, tuple(kernel), tuple(stride), tuple(pad), ceil_mode=plan.ceil)
        top = pool(_border(x, plan.before, plan.after, -math.inf), tuple(kernel), tuple(stride))
        return _border(top, (0,) * len(kernel), plan.outside, LOWEST)

    def max_pool_with_index(
        self, x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool
    ) -> tuple[Tensor, Tensor]:
        plan = _plan(tuple(x.shape[2:]), tuple(kernel), tuple(stride), tuple(pad), ceil)
        pool, none = _MAX[_axes(x)], (0,) * len(kernel)
        if plan.ceil is not None:
            settings = {"ceil_mode": plan.ceil, "return_indices": True}
            top, places = pool(x, tuple(kernel), tuple(stride), tuple(pad), **settings)
            return top, places.to(torch.float32)
        bordered = _border(x, plan.before, plan.after, -math.inf)
        top, places = pool(bordered, tuple(kernel), tuple(stride), return_indices=True)
        places = _moved(places, bordered.shape[2:], plan.before, x.shape[2:])
        return _border(top, none, plan.outside, LOWEST), _border(places, none, plan.outside, -1.0)

    def ave_pool(
        self, x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool
    ) -> Tensor:
        if tuple(kernel) == tuple(x.shape[2:]) and not any(pad):
            return x.mean(tuple(range(2, x.dim())), keepdim=True)
        plan = _plan(tuple(x.shape[2:]), tuple(kernel), tuple(stride), tuple(pad), ceil)
        if _axes(x) == 1:  # torch has no divisor_override for one axis
            row = x.unsqueeze(2)
            one = self.ave_pool(row, kernel=(1, *kernel), stride=(1, *stride), pad=(0, *pad), ceil=ceil)
            return one.squeeze(2)
        pool: Any = F.avg_pool2d if _axes(x) == 2 else F.avg_pool3d
        if plan.ceil is not None:
            return pool(x, tuple(kernel), tuple(stride), tuple(pad), ceil_mode=plan.ceil)
        bordered = _border(x, plan.before, plan.after, 0.0)
        sums = _border(
            pool(bordered, tuple(kernel), tuple(stride), divisor_override=1), (0,) * len(kernel), plan.outside, 0.0
        )
        # Caffe divides a sum of nothing by the count of cells, which may be 0 or below: NaN, or 0.
        return sums / torch.from_numpy(plan.cells.copy()).to(x.device) + 0.0


def _axes(x: Tensor) -> int:
    axes = x.dim() - 2
    if axes not in _MAX:
        raise LayerError(f"torch pools 1 to 3 spatial axes, not {axes}")
    return int(axes)


@lru_cache(maxsize=512)
def _plan(extent: Shape, kernel: Shape, stride: Shape, pad: Shape, ceil: bool) -> _Plan:
    windows = pooled(extent, kernel=kernel, stride=stride, pad=pad, ceil=ceil)
    axes = list(zip(extent, windows, kernel, stride, pad, strict=True))
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
    return _Plan(own, pad, after, outside, cells)


def _of_torch(axes: Sequence[Sequence[int]], ceil: bool) -> Shape:
    """How many windows torch has."""
    found = []
    for n, _, k, s, p in axes:
        count = (n + 2 * p - k + (s - 1 if ceil else 0)) // s + 1
        found.append(count - (ceil and (count - 1) * s >= n + p))
    return tuple(found)


def _border(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """x with so many cells more at the ends of each spatial axis."""
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
