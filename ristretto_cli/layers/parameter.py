"""Parameter."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, constant_filler, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V, show

_MAX_AXES = 32  # of a blob in Caffe


@layer_type("Parameter")
class Parameter(LayerType):
    """A trained parameter as top, of the given shape; initially zeros."""

    bottoms = (0, 0)

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        shape = tuple(message.parameter_param.shape.dim)
        if len(shape) > _MAX_AXES:
            raise LayerError(f"its shape has {len(shape)} axes", hint=f"The maximum is {_MAX_AXES}.")
        if min(shape, default=1) < 1:
            raise LayerError(f"its shape is {show(shape)}", hint="Every extent must be 1 or more.")
        return (ParamDef(shape, constant_filler()),)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        return list(params)
