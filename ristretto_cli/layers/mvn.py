"""MVN."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("MVN")
class MVN(LayerType):
    """x - mean, by default divided by (standard deviation + eps), for each plane or, with across_channels, each item.

    x has at most 4 axes; the top always has 4, with 1 for missing ones.
    """

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.mvn_param
        if len(x.shape) > 4:
            raise LayerError(
                f"the bottom has shape {show(x.shape)}, but MVN takes at most 4 axes", hint="Reshape the bottom."
            )
        if len(x.shape) < 4:
            x = ops.reshape(x, x.shape + (1,) * (4 - len(x.shape)))
        axes = [1, 2, 3] if param.across_channels else [2, 3]
        deviation = ops.sub(x, ops.mean(x, axes))
        if not param.normalize_variance:
            return [deviation]
        # Caffe adds eps after the root, unlike BatchNorm.
        spread = ops.sqrt(ops.mean(ops.mul(deviation, deviation), axes))
        return [ops.div(deviation, ops.add(spread, ops.constant(param.eps)))]
