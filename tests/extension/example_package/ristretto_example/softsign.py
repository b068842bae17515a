"""Softsign, as a layer type and as the replacement of a Python layer."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.python import python_layer
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Softsign")
@python_layer("activations", "SoftsignLayer")
class Softsign(LayerType):
    """x / (1 + |x|)."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        return [ops.div(x, ops.add(ops.abs(x), ops.constant(1.0)))]
