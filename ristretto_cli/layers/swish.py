"""Swish."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Swish")
class Swish(LayerType):
    """x * sigmoid(beta * x)."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        beta = layer.message.swish_param.beta
        return [ops.mul(x, ops.sigmoid(x if beta == 1 else ops.mul(x, ops.constant(beta))))]
