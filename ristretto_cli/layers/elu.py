"""ELU."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("ELU")
class ELU(LayerType):
    """x where x > 0, otherwise alpha * (exp(x) - 1)."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        zero = ops.constant(0.0)
        positive = ops.less(zero, x)
        # exp gets no positive number: it could overflow and spoil the gradient even where it is not selected.
        curve = ops.sub(ops.exp(ops.where(positive, zero, x)), ops.constant(1.0))
        alpha = layer.message.elu_param.alpha
        return [ops.where(positive, x, ops.mul(curve, ops.constant(alpha)))]
