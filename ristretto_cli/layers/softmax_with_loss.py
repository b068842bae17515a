"""SoftmaxWithLoss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.labels import Predictions, at_label, predictions, whole
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show
from ristretto_cli.wire.messages import Message, enum_name

_LEAST = float(np.finfo(np.float32).tiny)  # what a probability is at least: its logarithm stays finite


@layer_type("SoftmaxWithLoss")
class SoftmaxWithLoss(LayerType):
    """The mean of -log(max(p, FLT_MIN)), where p is the softmax at the label's class. Scores, labels to ().

    The classes are on softmax_param's axis; there is a label for each prediction. Those that are equal to
    ignore_label do not count. The sum is divided by (at least 1): the number of labels that count (VALID),
    of all labels (FULL), the extent in front of the classes (BATCH_SIZE), or nothing (NONE). A label without
    a class has p = 0 and so the greatest loss; Caffe reads foreign memory there.
    """

    bottoms = (2, 2)
    # Caffe's own second top, the probabilities, cannot be had: its count of loss weights is never right.
    tops = (1, 1)
    is_loss = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        scores, labels = bottoms
        if scores.shape[:1] != labels.shape[:1]:
            raise LayerError(
                f"scores of shape {show(scores.shape)} and labels of shape {show(labels.shape)} differ on axis 0",
                remedy="Give labels for the same batch.",
            )
        axis = layer.message.softmax_param.axis
        layout = predictions(scores.shape, labels.shape, axis)
        label = whole(ops, labels, layout)
        zero, one = ops.constant(0.0), ops.constant(1.0)

        prob = ops.reshape(ops.softmax(scores, axis % len(scores.shape)), layout.shape)
        chosen = ops.sum(ops.where(at_label(ops, label, layout), prob, zero), [1])
        loss = ops.sub(zero, ops.log(ops.maximum(chosen, ops.constant(_LEAST))))

        param = layer.message.loss_param
        count = ops.constant(float(layout.outer * layout.inner))
        if param.HasField("ignore_label"):
            ignored = ops.equal(label, ops.constant(float(param.ignore_label)))
            loss = ops.where(ignored, zero, loss)
            count = ops.sum(ops.where(ignored, zero, one), [0, 1, 2])
        divisor = _divisor(ops, param, layout, count)
        return [ops.reshape(ops.div(ops.sum(loss, [0, 1, 2]), divisor), ())]


def _divisor(ops: Ops[V], param: Message, layout: Predictions, count: V) -> V:
    """What the sum of losses is divided by; count: of the labels that are not ignored."""
    mode = enum_name(param, "normalization")
    if param.HasField("normalize") and not param.HasField("normalization"):
        mode = "VALID" if param.normalize else "BATCH_SIZE"
    if mode == "VALID":
        return ops.maximum(count, ops.constant(1.0))
    fixed = {"FULL": layout.outer * layout.inner, "BATCH_SIZE": layout.outer, "NONE": 1}[mode]
    return ops.constant(float(max(fixed, 1)))
