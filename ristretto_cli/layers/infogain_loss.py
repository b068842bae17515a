"""InfogainLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.caffe_io.weights import read_blob
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.layers.labels import at_label, predictions, whole
from ristretto_cli.layers.layer_type import LabelledClasses, LayerType, labelled_classes, layer_type
from ristretto_cli.layers.losses import LOG_THRESHOLD, check_same_batch, normalization, normalized
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, Shape, V, show


@layer_type("InfogainLoss")
class InfogainLoss(LayerType):
    """The mean of -H[label] · log(max(p, 1e-20)), where p is the softmax. Scores, labels, perhaps H to ().

    H, of classes x classes values, is the third bottom or read from `source`, a .binaryproto. The classes
    are on infogain_loss_param's axis; there is one label per prediction. Which losses count, and the divisor,
    are described in `losses.normalized`; VALID by default. A second top has the probabilities. A label
    out of range has no row of H and adds nothing (Caffe reads out of bounds).
    """

    bottoms = (2, 3)
    tops = (1, 2)
    is_loss = True
    without_gradient = (1, 2)

    def labelled_classes(self, layer: Layer) -> LabelledClasses | None:
        axis = layer.message.infogain_loss_param.axis
        return labelled_classes(layer.bottoms[0].shape[axis], layer.message.loss_param)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        scores, labels = bottoms[:2]
        param = layer.message.loss_param
        if param.HasField("normalize"):
            raise LayerError("normalize does not apply to this loss", hint="Set normalization.")
        check_same_batch(scores.shape, labels.shape)
        axis = layer.message.infogain_loss_param.axis
        layout = predictions(scores.shape, labels.shape, axis)
        matrix = bottoms[2] if len(bottoms) == 3 else _stored(ops, layer.message)
        _check_matrix(matrix.shape, layout.classes)

        label = whole(ops, labels, layout)
        zero, one = ops.constant(0.0), ops.constant(1.0)
        logarithms = ops.reshape(ops.log_softmax(scores, axis % len(scores.shape), LOG_THRESHOLD), layout.shape)
        # The rows of H for the labels, as columns (outer, classes, inner).
        columns = ops.transpose(ops.reshape(matrix, (layout.classes, layout.classes)), (1, 0))
        gains = ops.matmul(columns, ops.where(at_label(ops, label, layout), one, zero))
        losses = ops.sub(zero, ops.sum(ops.mul(gains, logarithms), [1]))
        loss = normalized(ops, losses, label, layout, param, normalization(param, "VALID"))
        return [loss] if len(layer.tops) == 1 else [loss, ops.softmax(scores, axis % len(scores.shape))]


def _stored(ops: Ops[V], message: Message) -> V:
    """The matrix that `source` holds."""
    param = message.infogain_loss_param
    if not param.source:
        raise LayerError("there is no matrix H", hint="Set source in infogain_loss_param, or add a third bottom.")
    try:
        _check_regular(param.source)
        return ops.constant(read_blob(param.source))
    except RistrettoError as error:
        raise LayerError(str(error)) from error


def _check_regular(path: str) -> None:
    """RistrettoError for a device or a pipe, which might never end; other errors are left to the reader."""
    try:
        found = Path(path)
        endless = found.exists() and not found.is_file() and not found.is_dir()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return
    if endless:
        raise RistrettoError("is not a regular file", where=path, hint="Use a regular file.")


def _check_matrix(shape: Shape, classes: int) -> None:
    if math.prod(shape) != classes * classes:
        raise LayerError(
            f"H has {math.prod(shape)} values (shape {show(shape)}) for {classes} classes",
            hint=f"Use {classes} x {classes}, or set axis to that of the classes.",
        )
