"""Distortion: how far a net's predictions are from those of the float net on the same batches.

It is smooth, unlike an accuracy: it tells widths apart that have the same score on a few batches. It needs no labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ristretto_cli.backends.onnx import Node
from ristretto_cli.corrections.divergence import class_divergence
from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.ops import Array

_MAX_ROWS = 2**16  # of a batch's predictions that are compared
_CLASSIFIERS = frozenset({"Accuracy", "Softmax", "SoftmaxWithLoss"})  # their first bottom has a score for each class


@dataclass(frozen=True)
class Prediction:
    """A blob with predictions: the position of a layer, and the index among its bottoms in the graph.

    class_axis: the axis of the classes, if the values are the logits of a softmax. is_top: it is one of its tops.
    """

    layer: int
    bottom: int
    class_axis: int | None
    is_top: bool = False

    def value(self, run: Run[Node]) -> Node:
        """The blob's value in a run."""
        return (run.outputs if self.is_top else run.inputs)[self.layer][self.bottom]

    def rows(self, values: Array) -> Array:
        """The values of a batch as rows, a row for each item that is classified; of many items an even sample."""
        if self.class_axis is None:
            rows = values.reshape(-1, 1)
        else:
            rows = np.moveaxis(values, self.class_axis, -1).reshape(-1, values.shape[self.class_axis])
        return rows[:: max(1, -(-rows.shape[0] // _MAX_ROWS))].astype(np.float32)

    def distortion(self, values: Sequence[Array], reference: Sequence[Array]) -> float:
        """The distortion of rows for some batches, relative to the float net's.

        For logits it is the Kullback-Leibler divergence of the classes' probabilities, otherwise the mean squared error
        in terms of the mean square. Infinite if a value is not finite.
        """
        found, expected = np.concatenate(values), np.concatenate(reference)
        if not np.isfinite(found).all():
            return math.inf
        if self.class_axis is None:
            energy = float(np.square(expected, dtype=np.float64).sum())
            error = float(np.square(found - expected, dtype=np.float64).sum())
            return error / energy if energy else error
        return class_divergence(expected, found, 1)


def prediction_at(net: Net, blob: str) -> Prediction:
    """A blob as a prediction: the logits, if a Softmax layer computes it."""
    position = _producer(net, blob, len(net.layers))
    layer = net.layers[position]
    if layer.type == "Softmax":
        return Prediction(position, 0, _class_axis(layer, layer.bottoms[0]))
    names = [top.name for top in in_graph(layer.tops)]
    return Prediction(position, names.index(blob), None, is_top=True)


def predictions_of(net: Net, score: str) -> list[Prediction]:
    """The predictions that an output is computed from: those closest to it that are in the graph and depend on weights.

    Raises RistrettoError if there are none.
    """
    trained: set[int] = set()
    depends: list[list[Blob]] = []  # for each layer, the bottoms that depend on parameters
    for layer in net.layers:
        depends.append([blob for blob in layer.bottoms if blob.storage in trained])
        if depends[-1] or (layer.params and not layer.is_source):
            trained.update(top.storage for top in layer.tops)
        else:
            trained.difference_update(top.storage for top in layer.tops)
    found: list[Prediction] = []
    pending = [_producer(net, score, len(net.layers))]
    while pending:
        position = pending.pop()
        layer = net.layers[position]
        for bottom in depends[position]:
            producer = _producer(net, bottom.name, position)
            if bottom.on_host or net.layers[producer].type == "Softmax":
                pending.append(producer)
            else:
                each = Prediction(position, in_graph(layer.bottoms).index(bottom), _class_axis(layer, bottom))
                found += [each] if each not in found else []
    if not found:
        raise RistrettoError(
            f'"{score}" does not depend on weights, so the error of a width cannot be measured',
            where=net.file,
            hint="Choose another output with --score.",
        )
    return sorted(found, key=lambda each: (each.layer, each.bottom))


def _producer(net: Net, blob: str, before: int) -> int:
    """The position of the last layer before this one that writes a blob of this name."""
    return max(i for i, layer in enumerate(net.layers[:before]) if blob in (top.name for top in layer.tops))


def _class_axis(layer: Layer, bottom: Blob) -> int | None:
    if layer.type not in _CLASSIFIERS or bottom != layer.bottoms[0] or layer.type not in LAYERS:
        return None
    message = layer.message
    axis = message.accuracy_param.axis if layer.type == "Accuracy" else message.softmax_param.axis
    axis = int(axis) % len(bottom.shape)
    return axis if bottom.shape[axis] > 1 else None
