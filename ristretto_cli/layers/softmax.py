"""Softmax."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Softmax")
class Softmax(LayerType):
    """exp(x) divided by its sum along `axis`."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        return [ops.softmax(x, canonical_axis(layer.message.softmax_param.axis, x.shape))]
