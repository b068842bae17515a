"""SoftmaxWithLoss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.layers.labels import at_label, predictions, whole
from ristretto_cli.layers.layer_type import LabelledClasses, LayerType, labelled_classes, layer_type
from ristretto_cli.layers.losses import check_same_batch, normalization, normalized
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V

_MINIMUMS = float(np.finfo(np.float32).tiny)  # minimum of a probability: its logarithm stays finite


@layer_type("SoftmaxWithLoss")
class SoftmaxWithLoss(LayerType):
    """The mean of -log(max(p, FLT_MIN)), where p is the softmax at the label's class. Scores, labels to ().

    The classes are on softmax_param's axis; there is one label per prediction. Which losses count, and the divisor of
    the sum, are described in `losses.normalized`; VALID by default. A label out of range has p = 0 and so
    the greatest loss (Caffe reads out of bounds).
    """

    bottoms = (2, 2)
    # Caffe's second top, the probabilities, is unusable: its check of loss weights always fails.
    tops = (1, 1)
    is_loss = True
    without_gradient = (1,)

    def labelled_classes(self, layer: Layer) -> LabelledClasses | None:
        axis = layer.message.softmax_param.axis
        return labelled_classes(layer.bottoms[0].shape[axis], layer.message.loss_param)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        scores, labels = bottoms
        check_same_batch(scores.shape, labels.shape)
        axis = layer.message.softmax_param.axis
        layout = predictions(scores.shape, labels.shape, axis)
        label = whole(ops, labels, layout)
        zero = ops.constant(0.0)

        logarithms = ops.reshape(ops.log_softmax(scores, axis % len(scores.shape), _MINIMUMS), layout.shape)
        loss = ops.sub(zero, ops.sum(ops.where(at_label(ops, label, layout), logarithms, zero), [1]))
        is_class = ops.less(ops.sub(label, ops.constant(float(layout.classes))), zero)
        greatest = ops.constant(-float(np.log(np.float32(_MINIMUMS))))
        loss = ops.where(ops.less(label, zero), greatest, ops.where(is_class, loss, greatest))
        param = layer.message.loss_param
        return [normalized(ops, loss, label, layout, param, normalization(param, "VALID"))]
