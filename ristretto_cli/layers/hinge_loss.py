"""HingeLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.layers.labels import Predictions, at_label, whole
from ristretto_cli.layers.layer_type import LabelledClasses, LayerType, layer_type
from ristretto_cli.layers.losses import check_at_most_four_axes, check_one_per_row, check_same_batch
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("HingeLoss")
class HingeLoss(LayerType):
    """The sum of max(0, 1 - t x), or of its squares (norm: L2), divided by N, where t is 1 at the label, else -1.

    Scores x, N rows with a value for each class; N labels; to (). For a label out of range t is -1 everywhere (Caffe
    writes out of bounds).
    """

    bottoms = (2, 2)
    is_loss = True
    without_gradient = (1,)

    def labelled_classes(self, layer: Layer) -> LabelledClasses | None:
        return LabelledClasses(math.prod(layer.bottoms[0].shape[1:]))

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        scores, labels = bottoms
        check_same_batch(scores.shape, labels.shape)
        check_at_most_four_axes(scores.shape)
        rows = scores.shape[0]
        check_one_per_row(labels.shape, rows, "labels")
        layout = Predictions(rows, math.prod(scores.shape[1:]), 1)
        is_label = at_label(ops, whole(ops, labels, layout), layout)
        score = ops.reshape(scores, layout.shape)
        signed = ops.where(is_label, ops.sub(ops.constant(0.0), score), score)
        short = ops.relu(ops.add(ops.constant(1.0), signed))
        if enum_name(layer.message.hinge_loss_param, "norm") == "L2":
            short = ops.mul(short, short)
        return [ops.reshape(ops.div(ops.sum(short, [0, 1, 2]), ops.constant(float(rows))), ())]
