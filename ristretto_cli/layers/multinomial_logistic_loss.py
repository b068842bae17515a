"""MultinomialLogisticLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ristretto_cli.layers.labels import Predictions, at_label, whole
from ristretto_cli.layers.layer_type import LabelledClasses, LayerType, layer_type
from ristretto_cli.layers.losses import (
    LOG_THRESHOLD,
    check_at_most_four_axes,
    check_one_per_row,
    check_same_batch,
)
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LayerType):
    """The mean of -log(max(p, 1e-20)), where p is the probability at the label. Probabilities, labels to ().

    N rows with a probability for each class; N labels. A label out of range has p = 0 (Caffe reads out of
    bounds).
    """

    bottoms = (2, 2)
    is_loss = True
    without_gradient = (1,)

    def labelled_classes(self, layer: Layer) -> LabelledClasses | None:
        return LabelledClasses(math.prod(layer.bottoms[0].shape[1:]))

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        probabilities, labels = bottoms
        check_same_batch(probabilities.shape, labels.shape)
        check_at_most_four_axes(probabilities.shape, labels.shape)
        rows = probabilities.shape[0]
        check_one_per_row(labels.shape, rows, "labels")
        layout = Predictions(rows, math.prod(probabilities.shape[1:]), 1)
        is_label = at_label(ops, whole(ops, labels, layout), layout)
        zero = ops.constant(0.0)
        chosen = ops.sum(ops.where(is_label, ops.reshape(probabilities, layout.shape), zero), [1])
        # Below the threshold the gradient is that of the logarithm at the threshold.
        probable = ops.straight_through(chosen, ops.maximum(chosen, ops.constant(LOG_THRESHOLD)))
        total = ops.sum(ops.log(probable), [0, 1, 2])
        return [ops.reshape(ops.div(total, ops.constant(-float(rows))), ())]
