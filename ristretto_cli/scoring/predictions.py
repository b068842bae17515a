"""The predictions of a net: the blobs that its heads compare with labels, or, without labels, its outputs."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.scoring.metrics import layer_depths, ranked_heads

_SELECTING = frozenset({"ArgMax", "DetectionOutput", "Proposal"})


@dataclass(frozen=True)
class Prediction:
    """A blob that a net was trained to compute. class_axis: that of its class scores, None if it may have none.

    has_classes: whether a layer of the net takes it for class scores.
    """

    blob: Blob
    class_axis: int | None
    has_classes: bool


def predictions(net: Net) -> list[Prediction]:
    """The predictions of a net, that at the end of the longest path first; none may be found.

    Those of the heads (see `heads`), which Accuracy layers or losses read; without heads, the outputs that layers
    compute. The first bottom of a layer that selects or sorts takes the place of its top, which changes by leaps.
    """
    layers = [layer for layer, _ in ranked_heads(net)]
    if layers:
        found = [_of_head(net, layer) for layer in layers]
    else:
        depths = layer_depths(net)
        computed = [(i, layer) for i, layer in enumerate(net.layers) if not layer.is_source]
        ranks = {top.name: (depths[i], i) for i, layer in computed for top in layer.tops}
        outputs = [blob for blob in net.outputs if blob.name in ranks]
        ranked = sorted(outputs, key=lambda blob: ranks[blob.name], reverse=True)
        found = [_of_output(net, blob) for blob in ranked]
    distinct = {each.blob.name: each for each in reversed([each for each in found if each is not None])}
    return list(reversed(distinct.values()))


def class_axis_of(net: Net, blob: Blob) -> int | None:
    """The axis of a blob's class scores: as the net's layers take it, else 1; None if the blob has no such axis."""
    for each in predictions(net):
        if each.blob.name == blob.name and each.class_axis is not None:
            return each.class_axis
    return _default_axis(blob) if (axis := _softmax_axis(net, blob)) is None else axis


def _of_head(net: Net, layer: Layer) -> Prediction | None:
    """The prediction that a scoring layer reads: its first bottom that does not come from the data."""
    data = {top.name for each in net.layers if each.is_source for top in each.tops}
    blob = next((bottom for bottom in layer.bottoms if bottom.name not in data), None)
    if blob is None:
        return None
    axis = None
    if layer.type == "Accuracy":
        axis = canonical_axis(layer.message.accuracy_param.axis, blob.shape)
    elif layer.type == "SoftmaxWithLoss":
        axis = canonical_axis(layer.message.softmax_param.axis, blob.shape)
    return _before_selection(net, Prediction(blob, axis, axis is not None))


def _of_output(net: Net, blob: Blob) -> Prediction | None:
    softmax = _softmax_axis(net, blob)
    axis = _default_axis(blob) if softmax is None else softmax
    return _before_selection(net, Prediction(blob, axis, softmax is not None))


def _default_axis(blob: Blob) -> int | None:
    return 1 if len(blob.shape) > 1 else None


def _softmax_axis(net: Net, blob: Blob) -> int | None:
    """The axis of the Softmax layer that computes a blob, if one does."""
    writer = _writer(net, blob)
    if writer.type != "Softmax":
        return None
    return canonical_axis(writer.message.softmax_param.axis, blob.shape)


def _before_selection(net: Net, found: Prediction) -> Prediction | None:
    """The prediction before layers that select from it, and before layers outside the graph."""
    while True:
        writer = _writer(net, found.blob)
        if not (found.blob.on_host or writer.type in _SELECTING):
            return found
        if not writer.bottoms:
            return None
        blob = next((bottom for bottom in writer.bottoms if not bottom.on_host), writer.bottoms[0])
        is_class = writer.type == "ArgMax"
        found = Prediction(blob, _default_axis(blob) if is_class else None, is_class)


def _writer(net: Net, blob: Blob) -> Layer:
    """The last layer that writes a blob."""
    return next(layer for layer in reversed(net.layers) if blob.name in (top.name for top in layer.tops))
