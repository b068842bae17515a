"""SmoothL1Loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.losses import check_at_most_four_axes, check_same_batch
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show

MIN_SIGMA, MAX_SIGMA = 1e-9, 1e9  # the square and its inverse are float32


@layer_type("SmoothL1Loss")
class SmoothL1Loss(LayerType):
    """Fast R-CNN's loss: the sum, divided by N, of d^2 sigma^2 / 2 if |d| < 1 / sigma^2, else |d| - 1 / (2 sigma^2).

    Bottoms: predictions and targets with N rows, up to 4 axes; with two more, d = third (first - second), and each
    loss is multiplied by the fourth. All have the same number of values. Top: ().
    """

    bottoms = (2, 4)
    is_loss = True
    without_gradient = (2, 3)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        first = bottoms[0].shape
        sigma = layer.message.smooth_l1_loss_param.sigma
        if len(bottoms) == 3:
            raise LayerError("it has weights for the differences but none for the losses", hint="Use both or neither.")
        if not MIN_SIGMA <= sigma <= MAX_SIGMA:
            raise LayerError(f"sigma must be {MIN_SIGMA:g} to {MAX_SIGMA:g}, not {sigma:g}")
        check_same_batch(first, bottoms[1].shape)
        check_at_most_four_axes(*(bottom.shape for bottom in bottoms))
        if any(math.prod(bottom.shape) != math.prod(first) for bottom in bottoms):
            given = ", ".join(show(bottom.shape) for bottom in bottoms)
            raise LayerError(
                f"its bottoms {given} have different numbers of values", hint="All bottoms need the same number."
            )
        values, targets, *weights = (ops.reshape(bottom, first) for bottom in bottoms)
        difference = ops.sub(values, targets)
        if weights:
            difference = ops.mul(weights[0], difference)
        square = float(sigma) ** 2
        size = ops.abs(difference)
        curved = ops.mul(ops.mul(difference, difference), ops.constant(0.5 * square))
        straight = ops.sub(size, ops.constant(0.5 / square))
        losses = ops.where(ops.less(size, ops.constant(1 / square)), curved, straight)
        if weights:
            losses = ops.mul(weights[1], losses)
        total = ops.sum(losses, range(len(first)))
        return [ops.reshape(ops.div(total, ops.constant(float(first[0]))), ())]
