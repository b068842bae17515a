"""Threshold."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Threshold")
class Threshold(LayerType):
    """1 where x exceeds the threshold, else 0."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        above = ops.less(ops.constant(layer.message.threshold_param.threshold), x)
        return [ops.where(above, ops.constant(1.0), ops.constant(0.0))]

    def is_constant_below_zero(self, layer: Layer) -> bool:
        return bool(layer.message.threshold_param.threshold >= 0)
