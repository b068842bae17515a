"""Silence."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Silence")
class Silence(LayerType):
    """Nothing: it reads blobs, so that they are no outputs of the net."""

    bottoms = (1, None)
    tops = (0, 0)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        return []
