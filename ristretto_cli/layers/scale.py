"""Scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import ChannelAffine, LayerType, constant_filler, layer_type
from ristretto_cli.layers.operand import covered, spread
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Array, Ops, Shape, V, show


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

    def channel_affine(self, layer: Layer, params: Sequence[Array]) -> ChannelAffine:
        if len(layer.bottoms) == 2:
            raise LayerError("its scale is a bottom")
        shape, covers = layer.bottoms[0].shape, layer.params[0].shape
        start = canonical_axis(layer.message.scale_param.axis, shape) if covers else 0
        axes = [start + i for i, extent in enumerate(covers) if extent != 1]
        if len(axes) > 1:
            raise LayerError(f"its scale has shape {show(covers)}: more than one axis")
        scale = np.asarray(params[0], np.float64).ravel()
        shift = np.asarray(params[1], np.float64).ravel() if len(params) == 2 else np.zeros_like(scale)
        return ChannelAffine(axes[0] if axes else None, scale, shift)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, *others = bottoms
        param = layer.message.scale_param
        scale = others[0] if others else params[0]
        scale = spread(ops, scale, x.shape, param.axis)
        if not param.bias_term:
            return [ops.mul(x, scale)]
        return [ops.affine(x, scale, spread(ops, params[-1], x.shape, param.axis))]
