"""PSROIPooling."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import MAX_EXACT_INT, Ops, V, show

MAX_GROUPS = 256  # each row of cells adds its nodes to the graph
MIN_EXTENT = 0.1  # of a region on the maps


@layer_type("PSROIPooling")
class PSROIPooling(LayerType):
    """R-FCN's pooling: the mean of each of group_size x group_size cells of each region, from the cell's own channels.

    Bottoms: maps (N, output_dim group_size^2, H, W) and regions (R, 5): item, left, top, right, bottom, in pixels
    of the image, which is 1 / spatial_scale times as large as the maps. Top: (R, output_dim, group_size, group_size),
    where (d, i, j) is a mean of channel (d group_size + i) group_size + j. Corners are rounded, halves away from 0,
    and inclusive, then multiplied by spatial_scale; cells extend from the floor of their start to the ceiling of
    their end, so they overlap. Cells outside the maps give 0. An infinity or NaN in the maps spoils the cells
    of all regions in its channel.
    """

    bottoms = (2, 2)
    without_gradient = (1,)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, rois = bottoms
        param = layer.message.psroi_pooling_param
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        if len(rois.shape) < 1 or prod(rois.shape[1:]) != 5:
            raise LayerError(f"its second bottom has shape {show(rois.shape)}; regions have 5 numbers each")
        groups, planes = param.group_size, param.output_dim
        if not 1 <= groups <= MAX_GROUPS or planes < 1:
            raise LayerError(f"group_size must be 1 to {MAX_GROUPS}, and output_dim 1 or more")
        if not (isfinite(param.spatial_scale) and param.spatial_scale > 0):
            raise LayerError(f"spatial_scale must be more than 0, not {param.spatial_scale:g}")
        batch, channels, height, width = x.shape
        if channels != planes * groups**2:
            raise LayerError(
                f"its bottom has {channels} channels; output_dim {planes} and group_size {groups} "
                f"need {planes * groups**2}"
            )
        if batch > MAX_EXACT_INT:
            raise LayerError(f"{batch} items are more than the regions' float32 can distinguish, {MAX_EXACT_INT}")
        count = rois.shape[0]
        left, top, right, bottom = (
            _scaled(ops, ops.slice(ops.reshape(rois, (count, 5)), 1, i, i + 1), param.spatial_scale, last=i > 2)
            for i in range(1, 5)
        )
        rows, high = _cells(ops, top, bottom, groups, height)
        columns, wide = _cells(ops, left, right, groups, width)
        rows = ops.mul(ops.reshape(rows, (count, groups, 1, height)), _items(ops, rois, batch))
        sums = _sums(ops, x, rows, columns, planes)
        # An empty cell has a sum of 0.
        area = ops.maximum(
            ops.mul(ops.reshape(high, (count, 1, groups, 1)), ops.reshape(wide, (count, 1, 1, groups))),
            ops.constant(1.0),
        )
        return [ops.div(sums, area)]


def _scaled(ops: Ops[V], corner: V, scale: float, *, last: bool) -> V:
    """Corners of regions (R, 1) in pixels of the maps; last: right and bottom corners, inclusive."""
    size = ops.abs(corner)
    below = ops.floor(size)
    one = ops.constant(1.0)
    rounded = ops.where(ops.less(ops.sub(size, below), ops.constant(0.5)), below, ops.add(below, one))
    rounded = ops.where(ops.less(corner, ops.constant(0.0)), ops.sub(ops.constant(0.0), rounded), rounded)
    return ops.mul(ops.add(rounded, one) if last else rounded, ops.constant(scale))


def _cells(ops: Ops[V], start: V, end: V, groups: int, extent: int) -> tuple[V, V]:
    """1 for pixels of an axis in each cell, else 0, (R, groups, extent), and their number, (R, groups)."""
    count = start.shape[0]
    size = ops.div(ops.maximum(ops.sub(end, start), ops.constant(MIN_EXTENT)), ops.constant(float(groups)))
    number = np.arange(groups, dtype=np.float32)[None]
    zero, one = ops.constant(0.0), ops.constant(1.0)
    first = ops.floor(ops.add(ops.mul(ops.constant(number), size), start))
    stop = ops.sub(zero, ops.floor(ops.sub(zero, ops.add(ops.mul(ops.constant(number + 1), size), start))))
    first, stop = (ops.clip(bound, 0.0, float(extent)) for bound in (first, stop))
    pixel = ops.constant(np.arange(extent, dtype=np.float32))
    low, high = (ops.reshape(bound, (count, groups, 1)) for bound in (first, stop))
    inside = ops.where(ops.less(pixel, low), zero, ops.where(ops.less(pixel, high), one, zero))
    return inside, ops.sub(stop, first)


def _items(ops: Ops[V], rois: V, batch: int) -> V:
    """1 for the item of each region, 0 for others, (R, 1, N, 1)."""
    count = rois.shape[0]
    item = np.arange(batch, dtype=np.float32)
    # The lookup reports an item out of range like any other index.
    which = ops.gather(ops.constant(item), ops.slice(ops.reshape(rois, (count, 5)), 1, 0, 1), 0)
    same = ops.equal(ops.reshape(which, (count, 1, 1, 1)), ops.constant(item.reshape(-1, 1)))
    return ops.where(same, ops.constant(1.0), ops.constant(0.0))


def _sums(ops: Ops[V], x: V, rows: V, columns: V, planes: int) -> V:
    """The sum over each cell of each region, (R, planes, groups, groups). rows (R, groups, N, H), columns
    (R, groups, W): 1 for a pixel in a cell."""
    batch, _, height, width = x.shape
    count, groups = columns.shape[:2]
    pixels = batch * height * width
    x = ops.reshape(x, (batch, planes, groups, groups, height, width))
    x = ops.reshape(ops.transpose(x, [2, 3, 1, 0, 4, 5]), (groups, groups, planes, pixels))
    rows = ops.reshape(ops.transpose(rows, [1, 2, 3, 0]), (groups, 1, batch * height, 1, count))
    columns = ops.reshape(ops.transpose(columns, [1, 2, 0]), (groups, 1, width, count))
    sums = []
    for i in range(groups):  # one row of cells at a time: all masks at once would need too much memory
        row = ops.reshape(ops.slice(rows, 0, i, i + 1), (1, batch * height, 1, count))
        mask = ops.reshape(ops.mul(row, columns), (groups, pixels, count))
        maps = ops.reshape(ops.slice(x, 0, i, i + 1), (groups, planes, pixels))
        sums.append(ops.reshape(ops.matmul(maps, mask), (1, groups, planes, count)))
    return ops.transpose(ops.concat(sums, 0), [3, 2, 0, 1])
