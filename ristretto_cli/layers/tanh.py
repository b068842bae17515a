"""TanH."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("TanH")
class TanH(LayerType):
    """The hyperbolic tangent of x."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        return [ops.tanh(bottoms[0])]
