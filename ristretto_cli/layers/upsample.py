"""Upsample."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, Shape, V, show

MAX_SCALE = 2**15


@layer_type("Upsample")
class Upsample(LayerType):
    """Planes enlarged by `scale`. x (N, C, H, W).

    With one bottom, as in YOLO, each value is repeated. With two, as in SegNet and ENet, the second is the mask of a
    max pooling, of the bottom's shape: each value goes to the index in its mask, and all else is 0. The
    size may then be given as upsample_h and upsample_w, and pad_out_h and pad_out_w reduce it by one. Values whose
    index is outside the plane are dropped; of several with the same index, one is kept.
    """

    bottoms = (1, 2)
    without_gradient = (1,)

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, *mask = bottoms
        param = layer.message.upsample_param
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        if mask:
            return [ops.unpool(x, mask[0], _extent(param, x.shape[2:]))]
        if any(param.HasField(field) for field in ("upsample_h", "upsample_w", "pad_out_h", "pad_out_w")):
            raise LayerError(
                "upsample_h, upsample_w, pad_out_h and pad_out_w require a mask",
                hint="Use a mask as second bottom, or set only scale.",
            )
        return [_repeated(ops, x, *_scales(param))]


def _repeated(ops: Ops[V], x: V, down: int, across: int) -> V:
    batch, channels, height, width = x.shape
    cells = ops.reshape(x, (batch * channels, height, 1, width, 1))
    blocks = ops.expand(cells, (batch * channels, height, down, width, across))
    return ops.reshape(blocks, (batch, channels, height * down, width * across))


def _extent(param: Message, bottom: Shape) -> Shape:
    """The height and width of a top that uses a mask."""
    if param.HasField("upsample_h") and param.HasField("upsample_w"):
        extent = (param.upsample_h, param.upsample_w)
        if min(extent) < 2:
            raise LayerError(f"upsample_h and upsample_w must be 2 or more, not {show(extent)}")
        return extent
    scales = _scales(param)
    less = (param.pad_out_h, param.pad_out_w)
    if any(cut and scale != 2 for cut, scale in zip(less, scales, strict=True)):
        raise LayerError("pad_out_h and pad_out_w require a scale of 2")
    return tuple(n * scale - cut for n, scale, cut in zip(bottom, scales, less, strict=True))


def _scales(param: Message) -> tuple[int, int]:
    sides = [param.HasField("scale_h"), param.HasField("scale_w")]
    if any(sides) and not all(sides):
        raise LayerError("only one of scale_h and scale_w is given", hint="Set both, or scale.")
    scales = (param.scale_h, param.scale_w) if all(sides) else (param.scale, param.scale)
    if min(scales) < 1 or max(scales) > MAX_SCALE:
        raise LayerError(f"scale must be 1 to {MAX_SCALE}, not {show(scales)}")
    return scales
