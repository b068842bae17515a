"""Bias."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.operand import covered, spread
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V


@layer_type("Bias")
class Bias(LayerType):
    """x + bias.

    The bias is the second bottom, or otherwise a parameter; it covers the axes of x from `axis` on: as many as the
    second bottom has, or num_axes.
    """

    bottoms = (1, 2)
    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        if len(bottoms) == 2:
            return ()
        param = message.bias_param
        return (ParamDef(covered(bottoms[0], param.axis, param.num_axes), param.filler),)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, *others = bottoms
        bias = others[0] if others else params[0]
        return [ops.add(x, spread(ops, bias, x.shape, layer.message.bias_param.axis))]
