"""PReLU."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, constant_filler, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V, show


@layer_type("PReLU")
class PReLU(LayerType):
    """max(x, 0) + slope * min(x, 0). x (N, C, ...), slope (C,), or () with channel_shared."""

    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        (shape,) = bottoms
        if len(shape) < 2:
            raise LayerError(
                f"the bottom has shape {show(shape)}, but PReLU needs a channel axis after the first",
                hint="Use a bottom with at least 2 axes.",
            )
        param = message.prelu_param
        filler = param.filler if param.HasField("filler") else constant_filler(0.25)
        return (ParamDef(() if param.channel_shared else (shape[1],), filler),)

    def keeps_factors(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        (slope,) = params
        if slope.shape:
            slope = ops.reshape(slope, slope.shape + (1,) * (len(x.shape) - 2))
        return [ops.where(ops.less(ops.constant(0.0), x), x, ops.mul(x, slope))]
