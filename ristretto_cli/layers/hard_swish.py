"""HardSwish."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("HardSwish")
class HardSwish(LayerType):
    """x min(max(x + 3, 0), 6) / 6, as in MobileNet v3."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        gate = ops.clip(ops.add(x, ops.constant(3.0)), 0.0, 6.0)
        return [ops.div(ops.mul(x, gate), ops.constant(6.0))]
