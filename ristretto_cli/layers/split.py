"""Split."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Split")
class Split(LayerType):
    """Each top is the bottom, in the same memory."""

    tops = (1, None)

    def shares_memory(self, layer: Layer) -> bool:
        return True

    def keeps_factors(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        return [bottoms[0]] * len(layer.tops)
