"""Axpy."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Axpy")
class Axpy(LayerType):
    """SENet's: a x + y. Bottoms: a (N, C) or (N, C, 1, 1), one number for each plane; x and y (N, C, H, W)."""

    bottoms = (3, 3)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        a, x, y = bottoms
        if x.shape != y.shape:
            raise LayerError(f"its second and third bottoms have different shapes: {show(x.shape)} and {show(y.shape)}")
        if len(x.shape) < 2 or a.shape[:2] != x.shape[:2] or any(n != 1 for n in a.shape[2:]):
            raise LayerError(f"its first bottom, {show(a.shape)}, must have one number per plane of {show(x.shape)}")
        planes = ops.reshape(a, (*x.shape[:2], *(1 for _ in x.shape[2:])))
        return [ops.add(ops.mul(planes, x), y)]
