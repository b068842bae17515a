"""Accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.labels import at_label, predictions, whole
from ristretto_cli.layers.layer_type import LabelledClasses, LayerType, labelled_classes, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Accuracy")
class Accuracy(LayerType):
    """The fraction of correct predictions, overall and per class. Scores, labels to () and (classes,).

    A prediction is correct if fewer than top_k other classes score at least as high as the label's. Labels
    equal to ignore_label do not count; if none counts, the fraction is 0. A label out of range
    counts as a wrong prediction (Caffe reads out of bounds). A score of NaN at the label counts
    as correct, as in Caffe: no other is higher.
    """

    bottoms = (2, 2)
    without_gradient = (0, 1)
    tops = (1, 2)

    def labelled_classes(self, layer: Layer) -> LabelledClasses | None:
        param = layer.message.accuracy_param
        return labelled_classes(layer.bottoms[0].shape[param.axis], param)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        scores, labels = bottoms
        param = layer.message.accuracy_param
        layout = predictions(scores.shape, labels.shape, param.axis)
        if param.top_k > layout.classes:
            raise LayerError(
                f"top_k is {param.top_k}, but there are {layout.classes} classes",
                hint=f"Set top_k to at most {layout.classes}, or axis to that of the classes.",
            )
        score = ops.reshape(scores, layout.shape)
        label = whole(ops, labels, layout)
        zero, one = ops.constant(0.0), ops.constant(1.0)
        is_label = at_label(ops, label, layout)
        of_label = ops.sum(ops.where(is_label, score, zero), [1])
        as_high = ops.sum(ops.where(ops.greater_equal(score, of_label), one, zero), [1])
        fits = ops.less(as_high, ops.constant(float(param.top_k + 1)))  # the label's own class is among them

        hot = ops.where(is_label, one, zero)
        count = ops.constant(float(layout.outer * layout.inner))
        if param.HasField("ignore_label"):
            ignored = ops.equal(label, ops.constant(float(param.ignore_label)))
            hot = ops.where(ignored, zero, hot)
            count = ops.sum(ops.where(ignored, zero, one), [0, 1, 2])
        right = ops.where(fits, hot, zero)

        tops = [ops.reshape(_fraction(ops, ops.sum(right, [0, 1, 2]), count), ())]
        if len(layer.tops) == 2:
            per_class = _fraction(ops, ops.sum(right, [0, 2]), ops.sum(hot, [0, 2]))
            tops.append(ops.reshape(per_class, (layout.classes,)))
        return tops


def _fraction(ops: Ops[V], part: V, total: V) -> V:
    """part / total, and 0 for 0 / 0."""
    return ops.div(part, ops.maximum(total, ops.constant(1.0)))
