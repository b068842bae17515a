"""Class labels of Accuracy and the losses: float32 numbers, one per prediction."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.ops import Ops, Shape, V, show

_MAX_CLASSES = 2**24


@dataclass(frozen=True)
class Predictions:
    """The layout of scores: `outer` x `inner` predictions over `classes` classes each."""

    outer: int
    classes: int
    inner: int

    @property
    def shape(self) -> Shape:
        """(outer, classes, inner): the scores with the classes on axis 1."""
        return self.outer, self.classes, self.inner


def predictions(scores: Shape, labels: Shape, axis: int) -> Predictions:
    """The layout of scores with the classes on `axis`. LayerError unless each prediction has a label."""
    axis = canonical_axis(axis, scores)
    layout = Predictions(prod(scores[:axis]), scores[axis], prod(scores[axis + 1 :]))
    if prod(labels) != layout.outer * layout.inner:
        raise LayerError(
            f"{prod(labels)} labels (shape {show(labels)}) for {layout.outer * layout.inner} predictions "
            f"(scores of shape {show(scores)}, classes on axis {axis})",
            hint="Use one label per prediction, or set axis to that of the classes.",
        )
    return layout


def whole(ops: Ops[V], labels: V, layout: Predictions) -> V:
    """The labels as integers, truncated towards zero as by a cast in C. (outer, 1, inner)."""
    labels = ops.reshape(labels, (layout.outer, 1, layout.inner))
    zero = ops.constant(0.0)
    magnitude = ops.floor(ops.abs(labels))
    return ops.where(ops.less(labels, zero), ops.sub(zero, magnitude), magnitude)


def at_label(ops: Ops[V], label: V, layout: Predictions) -> V:
    """True at the class of each label, (outer, classes, inner); nowhere for a label out of range."""
    if layout.classes > _MAX_CLASSES:
        raise LayerError(f"{layout.classes} classes are more than float32 labels can distinguish, {_MAX_CLASSES}")
    classes = np.arange(layout.classes, dtype=np.float32).reshape(1, -1, 1)
    return ops.equal(label, ops.constant(classes))
