"""ROIPooling."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show

_MAX_ITEMS = 2**24


@layer_type("ROIPooling")
class ROIPooling(LayerType):
    """Fast R-CNN's pooling: the maximum of each of pooled_h x pooled_w cells of each region.

    Bottoms: maps (N, C, H, W) and regions (R, 5): item, left, top, right, bottom, in pixels of the image, which
    is 1 / spatial_scale times as large as the maps. Top: (R, C, pooled_h, pooled_w).
    """

    bottoms = (2, 2)
    without_gradient = (1,)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, rois = bottoms
        param = layer.message.roi_pooling_param
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        if len(rois.shape) < 1 or prod(rois.shape[1:]) != 5:
            raise LayerError(f"its second bottom has shape {show(rois.shape)}; regions have 5 numbers each")
        if param.pooled_h < 1 or param.pooled_w < 1:
            raise LayerError("pooled_h or pooled_w is missing or 0", hint="Set both, 1 or more.")
        if not (isfinite(param.spatial_scale) and param.spatial_scale > 0):
            raise LayerError(f"spatial_scale must be more than 0, not {param.spatial_scale:g}")
        if x.shape[0] > _MAX_ITEMS:
            raise LayerError(f"{x.shape[0]} items are more than the regions' float32 can distinguish, {_MAX_ITEMS}")
        rois = ops.reshape(rois, (rois.shape[0], 5))
        # The lookup reports an item out of range like any other index.
        items = ops.constant(np.arange(x.shape[0], dtype=np.float32))
        item = ops.gather(items, ops.slice(rois, 1, 0, 1), 0)
        regions = ops.concat([item, ops.slice(rois, 1, 1, 5)], 1)
        extent = (param.pooled_h, param.pooled_w)
        return [ops.roi_pool(x, regions, extent=extent, spatial_scale=param.spatial_scale)]
