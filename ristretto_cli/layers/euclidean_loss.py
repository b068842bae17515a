"""EuclideanLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.losses import check_at_most_four_axes, check_same_batch
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("EuclideanLoss")
class EuclideanLoss(LayerType):
    """The sum of (a - b)^2, divided by 2 N. Two bottoms with N rows of equally many values, up to 4 axes, to ()."""

    bottoms = (2, 2)
    is_loss = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        a, b = bottoms
        check_same_batch(a.shape, b.shape)
        check_at_most_four_axes(a.shape)
        if math.prod(a.shape) != math.prod(b.shape):
            raise LayerError(
                f"bottoms of shape {show(a.shape)} and {show(b.shape)} have different numbers of values",
                hint="Use a target for each value.",
            )
        difference = ops.sub(a, b if b.shape == a.shape else ops.reshape(b, a.shape))
        squares = ops.sum(ops.mul(difference, difference), range(len(a.shape)))
        return [ops.reshape(ops.div(squares, ops.constant(2.0 * a.shape[0])), ())]
