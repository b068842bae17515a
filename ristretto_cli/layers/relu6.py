"""ReLU6."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("ReLU6")
class ReLU6(LayerType):
    """min(max(x, 0), 6)."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        return [ops.clip(x, 0.0, 6.0)]

    def is_constant_below_zero(self, layer: Layer) -> bool:
        return True
