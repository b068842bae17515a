"""A warning of labels that are not classes of the layers that read them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LAYERS, LabelledClasses
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import AnyArray

log = logging.getLogger("ristretto")

_RENAMING = ("Split", "Reshape", "Flatten")  # layers that pass labels on


@dataclass(frozen=True)
class _Part:
    """An input of the net, or the part of it that a Slice layer gives: axis, begin and end."""

    blob: str
    cut: tuple[int, int, int] | None = None

    def of(self, batch: Mapping[str, AnyArray]) -> AnyArray | None:
        """The labels in a batch; None if it lacks them."""
        array = batch.get(self.blob)
        if array is None or self.cut is None:
            return array
        axis, begin, end = self.cut
        return array[(slice(None),) * axis + (slice(begin, end),)]


class LabelCheck:
    """Logs a warning for the first label that is not a class, of each layer that reads labels of a net's inputs.

    Accuracy layers count such a label as wrong, and losses are at their maximum; a training on it does not succeed.
    """

    def __init__(self, net: Net) -> None:
        self._phase = "TRAIN" if net.phase == TRAIN else "TEST"
        self._readers = list(_readers(net))

    def __call__(self, batch: Mapping[str, AnyArray]) -> None:
        """Check the labels of a batch, by blob name."""
        for reader in tuple(self._readers):
            layer, part, classes = reader
            labels = part.of(batch)
            label = None if labels is None else _outside(labels, classes)
            if label is None or reader not in self._readers:
                continue
            # Layers that read the same labels say the same.
            self._readers = [other for other in self._readers if (other[1], other[2].count) != (part, classes.count)]
            log.warning(
                'Label %g in blob "%s" (%s data) is not a class: layer "%s" (%s) has %d classes, %s. '
                "It counts as wrong; ignore_label leaves out one label.",
                label,
                part.blob,
                self._phase,
                layer.name,
                layer.type,
                classes.count,
                f"0 to {classes.count - 1}" if classes.count > 1 else "only 0",
            )


def unchecked(batch: Mapping[str, AnyArray]) -> None:
    """A check for passes in which labels do not matter."""


def _outside(labels: AnyArray, classes: LabelledClasses) -> float | None:
    """The first label that is not a class, None if all are."""
    values = np.trunc(np.asarray(labels, np.float32)).ravel()
    wrong = ~((values >= 0) & (values < classes.count))
    if classes.ignored is not None:
        wrong &= values != classes.ignored
    return float(values[wrong.argmax()]) if wrong.any() else None


def _readers(net: Net) -> Iterator[tuple[Layer, _Part, LabelledClasses]]:
    """The layers that read labels, with the labels and the classes."""
    parts: dict[tuple[str, int], _Part] = {}  # by the name and the storage of a blob
    inputs = {blob.name: blob.shape for blob in net.inputs}
    for layer in net.layers:
        if layer.is_source:
            parts.update({(top.name, top.storage): _Part(top.name) for top in layer.tops})
            continue
        found = [parts.get((bottom.name, bottom.storage)) for bottom in layer.bottoms]
        first = found[0] if found else None
        if first is not None and layer.type in _RENAMING:
            parts.update({(top.name, top.storage): first for top in layer.tops})
        elif (
            first is not None
            and layer.type == "Slice"
            and first.cut is None
            and layer.bottoms[0].shape == inputs[first.blob]  # it was not reshaped before
        ):
            parts.update(zip(((top.name, top.storage) for top in layer.tops), _slices(layer, first), strict=True))
        classes = LAYERS.get(layer.type).labelled_classes(layer)
        if classes is not None and len(found) > 1 and found[1] is not None:
            yield layer, found[1], classes


def _slices(layer: Layer, part: _Part) -> Iterator[_Part]:
    """What the tops of a Slice layer have of its bottom."""
    param = layer.message.slice_param
    axis = canonical_axis(param.slice_dim if param.HasField("slice_dim") else param.axis, layer.bottoms[0].shape)
    begin = 0
    for top in layer.tops:
        end = begin + top.shape[axis]
        yield _Part(part.blob, (axis, begin, end))
        begin = end
