"""Cross-layer equalization: channels scaled such that the weights in front of and behind them use their range alike.

A channel that reaches its readers only through layers without a sense of scale (ReLU, pooling, concatenation, sums)
may be multiplied by a positive factor where it is made and divided by it where it is read (Nagel et al., 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.concat import Concat
from ristretto_cli.layers.convolution import Convolution
from ristretto_cli.layers.inner_product import InnerProduct
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.layers.scale import Scale
from ristretto_cli.net.ir import Layer, Net, Param
from ristretto_cli.ops import AnyArray, Array

_ROUNDS = 10
_LARGEST_FACTOR = 32.0


@dataclass
class _Group:
    """Channels with a common factor. made: (layer, output); read: (layer, inputs)."""

    made: list[tuple[str, int]] = field(default_factory=list)
    read: list[tuple[str, int]] = field(default_factory=list)
    fixed: bool = False


class _Channels:
    """The groups of the channels of a net, as a forest of joined sets."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._groups: list[_Group] = []

    def new(self, count: int, layer: str | None = None) -> list[int]:
        start = len(self._parent)
        for i in range(count):
            self._parent.append(start + i)
            self._groups.append(_Group(made=[] if layer is None else [(layer, i)], fixed=layer is None))
        return list(range(start, start + count))

    def root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def group(self, channel: int) -> _Group:
        return self._groups[self.root(channel)]

    def join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if one == other:
            return
        kept, gone = self._groups[one], self._groups[other]
        kept.made += gone.made
        kept.read += gone.read
        kept.fixed |= gone.fixed
        self._parent[other] = one

    def fix(self, channels: Sequence[int]) -> None:
        for channel in channels:
            self.group(channel).fixed = True

    def groups(self) -> list[_Group]:
        return [self._groups[i] for i, parent in enumerate(self._parent) if parent == i]


def equalize(net: Net, largest_inputs: Mapping[str, AnyArray]) -> dict[str, Array]:
    """Parameters, by Param.key, of an equal net whose weights have less different ranges.

    largest_inputs: the largest magnitude of each channel of the bottom of layers, (C,), by layer. No channel is scaled
    so that it exceeds the others there, since that would widen the range of the activations.
    """
    inputs = {name: array / (array.max() or 1.0) for name, array in largest_inputs.items()}
    uses = Counter(param.key for layer in net.layers for param in layer.params)
    scaled = {
        layer.name: _Scaled(layer, [net.weights[param.key].reshape(param.shape) for param in layer.params])
        for layer in net.layers
        if _is_scalable(layer) and all(uses[param.key] == 1 for param in layer.params)
    }
    groups = [group for group in _channels(net, scaled).groups() if not group.fixed and group.made and group.read]
    for _ in range(_ROUNDS):
        largest_made = {name: each.made_range().max(initial=0.0) for name, each in scaled.items()}
        largest_read = {name: each.read_range().max(initial=0.0) for name, each in scaled.items() if each.reads}
        made_ranges = {name: each.made_range() for name, each in scaled.items()}
        read_ranges = {name: each.read_range() for name, each in scaled.items() if each.reads}
        factors: dict[str, tuple[AnyArray, AnyArray]] = {
            name: (np.ones(len(made_ranges[name])), np.ones(len(read_ranges.get(name, ())))) for name in scaled
        }
        for group in groups:
            made = max(made_ranges[name][i] / (largest_made[name] or 1.0) for name, i in group.made)
            made = max([made, *(inputs[name][i] for name, i in group.read if name in inputs)])
            read = max(read_ranges[name][i] / (largest_read[name] or 1.0) for name, i in group.read)
            if made <= 0 or read <= 0:
                continue
            factor = float(np.clip(np.sqrt(read / made), 1 / _LARGEST_FACTOR, _LARGEST_FACTOR))
            for name, i in group.made:
                factors[name][0][i] = factor
            for name, i in group.read:
                factors[name][1][i] = factor
                if name in inputs:
                    inputs[name][i] *= factor
        for name, (made_by, read_by) in factors.items():
            scaled[name].multiply(made_by, read_by)
    return {param.key: array for each in scaled.values() for param, array in each.changed()}


def _is_scalable(layer: Layer) -> bool:
    if layer.is_source or len(layer.bottoms) != 1 or len(layer.tops) != 1 or not layer.params:
        return False
    layer_type = LAYERS.get(layer.type)
    if isinstance(layer_type, Convolution):
        return (
            len(layer.bottoms[0].shape) > 2
            and canonical_axis(layer.message.convolution_param.axis, layer.bottoms[0].shape) == 1
        )
    if isinstance(layer_type, InnerProduct):
        return canonical_axis(layer.message.inner_product_param.axis, layer.bottoms[0].shape) == 1
    if isinstance(layer_type, Scale):
        shape = layer.bottoms[0].shape
        return (
            len(shape) > 1
            and layer.params[0].shape == shape[1:2]
            and canonical_axis(layer.message.scale_param.axis, shape) == 1
        )
    return False


def _channels(net: Net, scaled: dict[str, _Scaled]) -> _Channels:
    """The groups of channels of a net."""
    channels = _Channels()
    current: dict[int, list[int]] = {}  # by storage
    for layer in net.layers:
        bottoms = [current.get(blob.storage) for blob in layer.bottoms]
        tops: list[list[int] | None] = [None] * len(layer.tops)
        layer_type = None if layer.is_source else LAYERS.get(layer.type)
        each = scaled.get(layer.name)
        known = [b for b in bottoms if b is not None]
        if each is not None:
            if each.reads and bottoms[0] is not None:
                for i, channel in enumerate(bottoms[0]):
                    channels.group(channel).read.append((layer.name, i))
            else:
                for b in known:
                    channels.fix(b)
            tops = [channels.new(each.outputs, layer.name)]
        elif (
            layer_type is not None
            and isinstance(layer_type, Concat)
            and len(known) == len(bottoms)
            and _joins_channels(layer)
        ):
            tops = [[channel for b in known for channel in b]]
        elif layer_type is not None and layer_type.keeps_factors(layer) and len(known) == len(bottoms):
            for b in known[1:]:
                for one, other in zip(known[0], b, strict=True):
                    channels.join(one, other)
            tops = [known[0]] * len(layer.tops)
        else:
            for b in known:
                channels.fix(b)
        for blob, top in zip(layer.tops, tops, strict=True):
            if top is None:
                current.pop(blob.storage, None)
            else:
                current[blob.storage] = top
    for blob in net.outputs:
        channels.fix(current.get(blob.storage, []))
    return channels


def _joins_channels(layer: Layer) -> bool:
    return all(
        len(top.shape) > 1 and canonical_axis(layer.message.concat_param.axis, top.shape) == 1 for top in layer.tops
    )


class _Scaled:
    """A layer with parameters whose channels can be scaled, as arrays in float64."""

    def __init__(self, layer: Layer, arrays: Sequence[Array]) -> None:
        self._layer = layer
        self._arrays = [array.astype(np.float64) for array in arrays]
        self._is_scale = isinstance(LAYERS.get(layer.type), Scale)
        self._touched = False
        self.reads = not self._is_scale
        weights = self._arrays[0]
        if self._is_scale:
            self.outputs = weights.size
        elif isinstance(LAYERS.get(layer.type), InnerProduct):
            self._transpose = bool(layer.message.inner_product_param.transpose)
            self.outputs = int(layer.message.inner_product_param.num_output)
        else:
            self.outputs = weights.shape[0]

    def _view(self) -> AnyArray:
        """The weights (groups, outputs of the group, channels of the group, rest), a view."""
        weights, bottom = self._arrays[0], self._layer.bottoms[0].shape
        if isinstance(LAYERS.get(self._layer.type), InnerProduct):
            rows = weights.T if self._transpose else weights
            return rows.reshape(1, self.outputs, bottom[1], -1)
        group = bottom[1] // weights.shape[1]
        return weights.reshape(group, weights.shape[0] // group, weights.shape[1], -1)

    def made_range(self) -> AnyArray:
        """(outputs): the largest weight of each output; of a Scale the deviation of each channel, and its mean."""
        if self._is_scale:
            shift = np.abs(self._arrays[1]).ravel() if len(self._arrays) > 1 else 0.0
            return 3 * np.abs(self._arrays[0]).ravel() + shift
        largest: AnyArray = np.abs(self._view()).max((2, 3)).ravel()
        return largest

    def read_range(self) -> AnyArray:
        """(inputs): the largest weight of each channel of the bottom."""
        largest: AnyArray = np.abs(self._view()).max((1, 3)).ravel()
        return largest

    def multiply(self, made: AnyArray, read: AnyArray) -> None:
        if (made == 1).all() and (read == 1).all():
            return
        self._touched = True
        if self._is_scale:
            self._arrays = [(array.ravel() * made).reshape(array.shape) for array in self._arrays]
            return
        view = self._view()
        groups, outputs, inputs, _ = view.shape
        new = view * made.reshape(groups, outputs, 1, 1) / read.reshape(groups, 1, inputs, 1)
        if isinstance(LAYERS.get(self._layer.type), InnerProduct):
            rows = new.reshape(self.outputs, -1)
            self._arrays[0] = rows.T if self._transpose else rows
        else:
            self._arrays[0] = new.reshape(self._arrays[0].shape)
        if len(self._arrays) > 1:
            self._arrays[1] = (self._arrays[1].ravel() * made).reshape(self._arrays[1].shape)

    def changed(self) -> list[tuple[Param, Array]]:
        if not self._touched:
            return []
        return [
            (param, array.reshape(param.shape).astype(np.float32))
            for param, array in zip(self._layer.params, self._arrays, strict=True)
        ]
