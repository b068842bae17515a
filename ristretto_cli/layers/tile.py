"""Tile."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Tile")
class Tile(LayerType):
    """`tiles` copies of the bottom, concatenated along an axis."""

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.tile_param
        axis = canonical_axis(param.axis, x.shape)
        if param.tiles < 1:
            raise LayerError("tiles is missing or below 1", hint="Set the number of copies, 1 or more.")
        outer, inner = prod(x.shape[:axis]), prod(x.shape[axis:])
        copies = ops.expand(ops.reshape(x, (outer, 1, inner)), (outer, param.tiles, inner))
        return [ops.reshape(copies, (*x.shape[:axis], x.shape[axis] * param.tiles, *x.shape[axis + 1 :]))]
