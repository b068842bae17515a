"""Embed."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V


@layer_type("Embed")
class Embed(LayerType):
    """A trained vector for each index. x (*S) to (*S, num_output); weights (input_dim, num_output), bias (num_output).

    Indices are truncated towards zero. An index out of range is an error at run time (Caffe reads out of
    bounds).
    """

    without_gradient = (0,)

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        param = message.embed_param
        if param.num_output < 1:
            raise LayerError("num_output is missing", hint="Set the length of the vectors, 1 or more.")
        if param.input_dim < 1:
            raise LayerError("input_dim is missing", hint="Set the number of vectors, 1 or more.")
        weights = ParamDef((param.input_dim, param.num_output), param.weight_filler)
        return (weights, ParamDef((param.num_output,), param.bias_filler)) if param.bias_term else (weights,)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (indices,) = bottoms
        top = ops.gather(params[0], indices, 0)
        return [ops.add(top, params[1]) if layer.message.embed_param.bias_term else top]
