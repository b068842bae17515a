"""BNLL."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("BNLL")
class BNLL(LayerType):
    """log(1 + exp(x)), the binomial normal log likelihood."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        return [ops.softplus(x)]
