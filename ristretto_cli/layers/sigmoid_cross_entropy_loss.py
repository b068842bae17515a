"""SigmoidCrossEntropyLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.labels import Predictions, whole
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.losses import check_same_batch, normalization, normalized
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LayerType):
    """The sum of -t log(p) - (1 - t) log(1 - p), where p = sigmoid(x), normalized. Scores x, targets t to ().

    Each value is a separate prediction, axis 0 the batch. Which losses count, and the divisor of the sum, are
    described in `losses.normalized`; BATCH_SIZE by default. ignore_label is compared with the target truncated to an
    integer, so ignore_label: 0 also drops a target of 0.7.
    """

    bottoms = (2, 2)
    is_loss = True
    without_gradient = (1,)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        scores, targets = bottoms
        check_same_batch(scores.shape, targets.shape)
        if math.prod(scores.shape) != math.prod(targets.shape):
            raise LayerError(
                f"scores of shape {show(scores.shape)} and targets of shape {show(targets.shape)} "
                "have different numbers of values",
                hint="Use a target for each score.",
            )
        layout = Predictions(scores.shape[0], 1, math.prod(scores.shape[1:]))
        x, target = ops.reshape(scores, layout.shape), ops.reshape(targets, layout.shape)
        zero, one = ops.constant(0.0), ops.constant(1.0)
        # With the larger of the two exponentials factored out, neither overflows:
        # x (step(x) - t) + log(1 + exp(-|x|)), where step is 1 from 0 on.
        step = ops.where(ops.greater_equal(x, zero), one, zero)
        # -|x| as a product: its gradient at 0 is not the mean of both sides'.
        below = ops.mul(x, ops.where(ops.greater_equal(x, zero), ops.constant(-1.0), one))
        rest = ops.log(ops.add(one, ops.exp(below)))
        losses = ops.add(ops.mul(x, ops.sub(step, target)), rest)
        param = layer.message.loss_param
        mode = normalization(param, "BATCH_SIZE")
        return [normalized(ops, losses, whole(ops, targets, layout), layout, param, mode)]
