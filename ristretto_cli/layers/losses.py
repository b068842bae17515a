"""Shared code of losses: checks of their bottoms, and the normalized sum over a batch."""

from __future__ import annotations

import math

from ristretto_cli.caffe_io.messages import Message, enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.labels import Predictions
from ristretto_cli.ops import Ops, Shape, V, show

LOG_THRESHOLD = 1e-20  # minimum of a probability before its logarithm is taken


def check_same_batch(first: Shape, second: Shape) -> None:
    """LayerError unless both have a first axis, of the same extent."""
    if not first or not second or first[0] != second[0]:
        raise LayerError(
            f"bottoms of shape {show(first)} and {show(second)} differ on axis 0",
            hint="Use values and labels of the same batch.",
        )


def check_at_most_four_axes(*shapes: Shape) -> None:
    """LayerError for a shape with more axes; Caffe's older losses know only N, C, H and W."""
    for shape in shapes:
        if len(shape) > 4:
            raise LayerError(
                f"a bottom of shape {show(shape)} has {len(shape)} axes, but this loss takes at most 4",
                hint="Add a Reshape or Flatten layer before it.",
            )


def check_one_per_row(shape: Shape, rows: int, what: str) -> None:
    """LayerError unless a bottom has one value for each of `rows` rows; what: the values' name."""
    if math.prod(shape) != rows:
        raise LayerError(
            f"{math.prod(shape)} {what} (shape {show(shape)}) for a batch of {rows}", hint="Use one per row."
        )


def normalization(param: Message, default: str) -> str:
    """The normalization mode of a LossParameter: FULL, VALID, BATCH_SIZE or NONE; default: used if it is not set."""
    if param.HasField("normalization"):
        return enum_name(param, "normalization")
    if param.HasField("normalize"):
        return "VALID" if param.normalize else "BATCH_SIZE"
    return default


def normalized(ops: Ops[V], losses: V, labels: V, layout: Predictions, param: Message, mode: str) -> V:
    """The sum of the losses that count, divided according to `mode`, (). losses, labels: (outer, 1, inner).

    A loss does not count if its label, an integer, is param's ignore_label. The divisor is the number
    of losses that count (VALID), of all (FULL), the extent before the class axis (BATCH_SIZE), or 1 (NONE);
    it is never less than 1.
    """
    count = ops.constant(float(layout.outer * layout.inner))
    if param.HasField("ignore_label"):
        zero, one = ops.constant(0.0), ops.constant(1.0)
        ignored = ops.equal(labels, ops.constant(float(param.ignore_label)))
        losses = ops.where(ignored, zero, losses)
        count = ops.sum(ops.where(ignored, zero, one), [0, 1, 2])
    if mode == "VALID":
        divisor = ops.maximum(count, ops.constant(1.0))
    else:
        fixed = {"FULL": layout.outer * layout.inner, "BATCH_SIZE": layout.outer, "NONE": 1}[mode]
        divisor = ops.constant(float(max(fixed, 1)))
    return ops.reshape(ops.div(ops.sum(losses, [0, 1, 2]), divisor), ())
