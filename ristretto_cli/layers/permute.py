"""Permute."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Permute")
class Permute(LayerType):
    """The bottom with its axes in the given order, from SSD; axes that are not listed follow in their order."""

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        count = len(x.shape)
        order = list(layer.message.permute_param.order)
        if any(axis >= count for axis in order):
            raise LayerError(
                f"order contains axis {max(order)}, but the bottom has shape {show(x.shape)}",
                hint=f"Its axes are 0 to {count - 1}.",
            )
        if len(set(order)) != len(order):
            raise LayerError(
                f"order contains an axis twice: {', '.join(map(str, order))}", hint="Each axis may occur once."
            )
        return [ops.transpose(x, [*order, *(axis for axis in range(count) if axis not in order)])]
