"""Interp."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, Shape, V, show


@layer_type("Interp")
class Interp(LayerType):
    """Bilinear resizing with aligned corners, from DeepLab and PSPNet. x (N, C, H, W).

    pad_beg and pad_end, 0 or less, first crop rows and columns at the beginning and the end. The size is given by
    shrink_factor, by zoom_factor, by both in this order, or by height and width.
    """

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,), param = bottoms, layer.message.interp_param
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        if param.pad_beg > 0 or param.pad_end > 0:
            raise LayerError(
                f"pad_beg {param.pad_beg} and pad_end {param.pad_end} must be 0 or less: they crop the bottom"
            )
        left = tuple(n + param.pad_beg + param.pad_end for n in x.shape[2:])
        if min(left) < 1:
            raise LayerError(f"pad_beg {param.pad_beg} and pad_end {param.pad_end} remove all of {show(x.shape)}")
        for axis, extent in enumerate(left, 2):
            x = ops.slice(x, axis, -param.pad_beg, extent - param.pad_beg)
        return [ops.resize(x, _extent(param, left))]


def _extent(param: Message, bottom: Shape) -> Shape:
    shrink, zoom = param.HasField("shrink_factor"), param.HasField("zoom_factor")
    if shrink or zoom:
        if param.shrink_factor < 1 or param.zoom_factor < 1:
            raise LayerError("zoom_factor and shrink_factor must be 1 or more")
        shrunk = [(n - 1) // param.shrink_factor + 1 for n in bottom]
        return tuple(n + (n - 1) * (param.zoom_factor - 1) for n in shrunk)
    if not param.HasField("height") or not param.HasField("width"):
        raise LayerError("no size is given", hint="Set height and width, zoom_factor or shrink_factor.")
    if param.height < 1 or param.width < 1:
        raise LayerError(f"height {param.height} and width {param.width} must be 1 or more")
    return (param.height, param.width)
