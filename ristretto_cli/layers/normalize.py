"""Normalize."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, constant_filler, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V, show


@layer_type("Normalize")
class Normalize(LayerType):
    """SSD's normalization: x divided by its Euclidean norm, times a trained scale. x (N, C, ...).

    The norm is sqrt(eps + sum of squares), over a whole item, or with across_spatial: false over the
    channels at each position. Parameter: the scale, a scalar, or (C,) with channel_shared: false; initially 1.
    """

    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        (shape,) = bottoms
        if len(shape) < 2:
            raise LayerError(f"the bottom has shape {show(shape)}, but Normalize needs a channel axis")
        param = message.norm_param
        filler = param.scale_filler if param.HasField("scale_filler") else constant_filler(1.0)
        return (ParamDef(() if param.channel_shared else (shape[1],), filler),)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,), (scale,) = bottoms, params
        param = layer.message.norm_param
        axes = range(1, len(x.shape)) if param.across_spatial else [1]
        norm = ops.sqrt(ops.add(ops.sum(ops.mul(x, x), axes), ops.constant(param.eps)))
        if not param.channel_shared:
            scale = ops.reshape(scale, (x.shape[1], *(1 for _ in x.shape[2:])))
        return [ops.mul(ops.div(x, norm), scale)]
