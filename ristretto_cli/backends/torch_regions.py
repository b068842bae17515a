"""Primitives of detection and segmentation nets in torch: boxes, regions, resized planes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ristretto_cli.backends.torch_functions import Tensor
from ristretto_cli.backends.torch_pool import PoolTensors
from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Array


class RegionTensors(PoolTensors):
    """The primitives of TorchOps on boxes, and those that change the size of planes."""

    def resize(self, x: Tensor, extent: Sequence[int]) -> Tensor:
        return F.interpolate(x, tuple(extent), mode="bilinear", align_corners=True)

    def unpool(self, x: Tensor, places: Tensor, extent: Sequence[int]) -> Tensor:
        cells = math.prod(extent)
        # Values without a place go to an extra cell, which is removed.
        inside = (places >= 0) & (places < cells)
        index = torch.where(inside, places, torch.full_like(places, cells)).long().flatten(2)
        empty = x.new_zeros((*x.shape[:2], cells + 1))
        return empty.scatter(2, index, x.flatten(2))[:, :, :cells].reshape(*x.shape[:2], *extent)

    def roi_pool(self, x: Tensor, rois: Tensor, *, extent: Sequence[int], spatial_scale: float) -> Tensor:
        items = rois[:, 0].detach().cpu().numpy()
        corners = _rounded(rois[:, 1:].detach().cpu().numpy() * np.float32(spatial_scale))
        if not ((items >= 0) & (items < x.shape[0])).all():
            raise LayerError(f"a region has an invalid image index ({x.shape[0]} images)")
        tops = []
        for item, (left, top, right, bottom) in zip(items, corners, strict=True):
            # One axis after the other; of equals, the first row and the first place in it get the gradient.
            planes = _strips(x[int(item)], 2, left, right, extent[1])
            tops.append(_strips(planes, 1, top, bottom, extent[0]))
        empty = torch.full((), -math.inf, device=x.device)
        pooled = torch.stack(tops) if tops else x.new_zeros((0, x.shape[1], *extent))
        return torch.where(pooled == empty, torch.zeros_like(empty), pooled)

    def nms(
        self, boxes: Tensor, scores: Tensor, *, top_k: int, min_score: float, max_overlap: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            batch, classes, number = scores.shape
            count = min(top_k, number)
            best, places = torch.sort(scores, dim=2, descending=True, stable=True)
            best, places = best[:, :, :count], places[:, :, :count]
            corners = boxes.expand(batch, classes, number, 4).gather(2, places.unsqueeze(3).expand(-1, -1, -1, 4))
            low = corners[..., :2]
            high = torch.maximum(low, corners[..., 2:])  # a box with swapped corners has no area
            area = (high - low).prod(3)
            kept = best > min_score
            for i in range(count - 1):
                shared = torch.minimum(high[:, :, i : i + 1], high[:, :, i + 1 :])
                shared = (shared - torch.maximum(low[:, :, i : i + 1], low[:, :, i + 1 :])).clamp(min=0).prod(3)
                union = area[:, :, i : i + 1] + area[:, :, i + 1 :] - shared
                overlaps = (shared > 0) & (shared > max_overlap * union)
                kept[:, :, i + 1 :] &= ~(overlaps & kept[:, :, i : i + 1])
            return best, places.to(torch.float32), kept.to(torch.float32)


def _strips(planes: Tensor, axis: int, first: float, last: float, cells: int) -> Tensor:
    """The largest values of `cells` strips across planes (C, H, W), from a place to another; -inf for empty ones."""
    size = np.float32(max(last - first + 1, 1)) / np.float32(cells)
    found = []
    for cell in range(cells):
        ends = np.floor(np.float32(cell) * size), np.ceil(np.float32(cell + 1) * size)
        start, stop = (int(min(max(end + first, 0), planes.shape[axis])) for end in ends)
        if stop > start:
            found.append(planes.narrow(axis, start, stop - start).max(axis, keepdim=True)[0])
        else:
            found.append(torch.full_like(planes.narrow(axis, 0, 1), -math.inf))
    return torch.cat(found, axis)


def _rounded(numbers: Array) -> Array:
    """To the nearest integer, halves away from 0."""
    rounded: Array = np.trunc(numbers + np.copysign(np.float32(0.5), numbers))
    return rounded
