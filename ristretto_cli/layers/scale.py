"""Scale."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.layers.layer_type import LayerType, constant_filler, layer_type
from ristretto_cli.layers.operand import covered, spread
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V


@layer_type("Scale")
class Scale(LayerType):
    """x * scale, + bias if bias_term is set.

    The scale is the second bottom, or otherwise the first parameter; it covers the axes of x from `axis` on: as
    many as the second bottom has, or num_axes. The bias is the last parameter and has the same shape.
    """

    bottoms = (1, 2)
    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        param = message.scale_param
        if len(bottoms) == 2 and not param.bias_term:
            return ()
        num_axes = len(bottoms[1]) if len(bottoms) == 2 else param.num_axes
        shape = covered(bottoms[0], param.axis, num_axes)
        defs = []
        if len(bottoms) == 1:
            defs.append(ParamDef(shape, param.filler if param.HasField("filler") else constant_filler(1.0)))
        if param.bias_term:
            defs.append(ParamDef(shape, param.bias_filler))
        return tuple(defs)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, *others = bottoms
        param = layer.message.scale_param
        scale = others[0] if others else params[0]
        scale = spread(ops, scale, x.shape, param.axis)
        if not param.bias_term:
            return [ops.mul(x, scale)]
        return [ops.affine(x, scale, spread(ops, params[-1], x.shape, param.axis))]
