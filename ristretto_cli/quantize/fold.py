"""Folding: normalizations and scales of a net become part of the weights and biases of its products.

BatchNorm, Scale and BN multiply each channel by a constant and add a constant. Such a layer is folded into the
convolution, deconvolution or inner product that writes its bottom, or else into the one that reads its top.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message, message_class
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.caffe_io.weights import StoredBlob, WeightsFile, write_weights
from ristretto_cli.errors import LayerError, Location
from ristretto_cli.layers.layer_type import LAYERS, ChannelAffine, LayerType
from ristretto_cli.net.build import NetState, included
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.quantize.fold_products import Product, product_of
from ristretto_cli.quantize.message_graph import MessageGraph

log = logging.getLogger("ristretto")

_PHASES = {TEST: "TEST", TRAIN: "TRAIN"}


@dataclass(frozen=True)
class Folded:
    """A layer that was folded into another one."""

    name: str
    type: str
    into: str


@dataclass(frozen=True)
class NotFolded:
    """A layer of a type that can be folded, but was not, and the reason."""

    name: str
    type: str
    reason: str
    where: Location | None = None

    def __str__(self) -> str:
        return f'layer "{self.name}" ({self.type}) is not folded: {self.reason}'


@dataclass(frozen=True)
class FoldedNet:
    """A net after folding, in all phases, with its weights. folded, left: the layers of the types concerned."""

    net_file: NetFile
    weights: WeightsFile
    folded: tuple[Folded, ...]
    left: tuple[NotFolded, ...]

    def write_weights(self, path: str) -> None:
        """Write the weights with the net's layers, atomically, in the format that the name gives."""
        write_net_weights(path, self.net_file, self.weights)

    def lines(self) -> list[str]:
        """The number of layers folded, and a line for each that was not."""
        if self.folded:
            counts = ", ".join(f"{n} {kind}" for kind, n in Counter(each.type for each in self.folded).items())
            into = len({each.into for each in self.folded})
            first = f"Folded {counts} into {into} layer{'s' * (into != 1)}."
        else:
            first = "No layer was folded."
        return [first, *(f"{each.where}: {each}" if each.where else str(each) for each in self.left)]


def write_net_weights(path: str, net_file: NetFile, weights: WeightsFile) -> None:
    """Write the weights of a net with its layers, atomically, in the format that the name gives."""
    filters = {layer.name for layer in net_file.message.layer if layer.HasField("convolution_param")}
    arrays = {
        name: [_array(blob, keep_shape=name in filters and i == 0) for i, blob in enumerate(blobs)]
        for name, blobs in weights.layers.items()
    }
    write_weights(path, arrays, net=net_file.message)


def fold_net(net_file: NetFile, net: Net, weights: WeightsFile, state: NetState) -> FoldedNet:
    """Fold what can be folded of a net. net: it, of phase TEST in the given state, with the weights.

    The layers of other phases stay; what is folded in TEST must be connected alike in TRAIN.
    """
    return _Folding(net_file, net, weights, state).run()


class _Folding:
    def __init__(self, net_file: NetFile, net: Net, weights: WeightsFile, state: NetState) -> None:
        message = message_class("NetParameter")()
        message.CopyFrom(net_file.message)
        self._file = replace(net_file, message=message)
        self._source = weights
        self._net = net
        self._layers = {layer.name: layer for layer in net.layers if layer.params}
        self._arrays: dict[str, list[AnyArray]] = {}  # float64, of the layers that others were folded into
        self._removed: set[str] = set()
        self._folded: list[Folded] = []
        self._left: dict[str, str] = {}  # reasons by layer
        numbered = replace(net_file, layers=tuple(Location("", i) for i in range(len(net_file.layers))))
        self._graphs: dict[int, MessageGraph] = {}
        in_a_phase: set[int] = set()
        for phase in _PHASES:
            layers = list(included(numbered, replace(state, phase=phase)))
            self._graphs[phase] = MessageGraph([message for message, _ in layers])
            in_a_phase.update(where.line for _, where in layers)
        # For each layer of the file, whether TEST or TRAIN has it in the given state.
        self._in_a_phase = [i in in_a_phase for i in range(len(net_file.layers))]

    def run(self) -> FoldedNet:
        candidates = [layer for layer in self._net.layers if can_be_folded(layer.type)]
        before = -1
        # A layer may be folded only after its neighbour was, such as a BatchNorm in front of a Scale and a convolution.
        while len(self._folded) != before:
            before = len(self._folded)
            candidates = [layer for layer in candidates if not self._fold(layer)]
        left = [NotFolded(each.name, each.type, self._left[each.name], each.where) for each in candidates]
        return FoldedNet(self._file, self._weights(), tuple(self._folded), (*left, *self._of_other_states()))

    def _fold(self, layer: Layer) -> bool:
        """Fold a layer; if that is not possible, remember the reason."""
        try:
            params = [self._net.weights[param.key].reshape(param.shape) for param in layer.params]
            affine = LAYERS.get(layer.type).channel_affine(layer, params)
            if affine is None:
                raise LayerError("it is not a scale and a shift for each channel")
            self._check_message(layer.name)
        except LayerError as error:
            self._left[layer.name] = str(error)
            return False
        reasons = []
        for fold in (self._fold_into_producer, self._fold_into_reader):
            try:
                into = fold(layer, affine)
            except LayerError as error:
                reasons.append(str(error))
                continue
            self._folded.append(Folded(layer.name, layer.type, into))
            self._removed.add(layer.name)
            log.info('Layer "%s" (%s) was folded into "%s".', layer.name, layer.type, into)
            return True
        self._left[layer.name] = "; ".join(dict.fromkeys(reasons))
        return False

    def _fold_into_producer(self, layer: Layer, affine: ChannelAffine) -> str:
        bottom = layer.message.bottom[0]
        producer = self._graphs[TEST][layer.name].producer
        if producer is None:
            raise LayerError(f'no layer writes its bottom "{bottom}"')
        name = producer.name
        product = self._product(name, producer.type, f'its bottom "{bottom}" is written by')
        self._check_pair(name, layer.name)
        self._replace(product, product.fold_top(affine))
        self._remove(layer.name)
        for message in self._named(name):
            message.top[0] = layer.tops[0].name
        return name

    def _fold_into_reader(self, layer: Layer, affine: ChannelAffine) -> str:
        top = layer.tops[0].name
        readers = self._graphs[TEST][layer.name].readers
        if len(readers) != 1:
            raise LayerError(f'its top "{top}" has {len(readers) or "no"} readers')
        name = readers[0].name
        product = self._product(name, readers[0].type, f'its top "{top}" is read by')
        self._check_pair(layer.name, name)
        self._check_memory(layer, name)
        self._replace(product, product.fold_bottom(affine))
        self._remove(layer.name)
        for message in self._named(name):
            message.bottom[0] = layer.bottoms[0].name
        return name

    def _named(self, name: str) -> list[Message]:
        """The layers with a name, in all phases."""
        return [message for message in self._file.message.layer if message.name == name]

    def _product(self, name: str, type_name: str, role: str) -> Product:
        """The layer with this name as a product. LayerError if it is none, or its parameters cannot be changed."""
        if type_name in LAYERS and LAYERS.get(type_name).quantized:
            raise LayerError(f'{role} "{name}", which is already quantized ({type_name})')
        layer = self._layers.get(name)
        if layer is None or layer.type != type_name:
            raise LayerError(f'{role} "{name}" ({type_name})')
        arrays = self._arrays.get(name)
        if arrays is None:
            arrays = [self._net.weights[param.key].reshape(param.shape).astype(np.float64) for param in layer.params]
        product = product_of(layer, arrays)
        if product is None:
            raise LayerError(f'{role} "{name}" ({type_name})')
        if len(layer.bottoms) != 1:
            raise LayerError(f'"{name}" has {len(layer.bottoms)} bottoms with the same weights')
        self._check_message(name)
        self._check_not_shared(name)
        return product

    def _check_message(self, name: str) -> None:
        """LayerError if a layer's top is a loss, or if its settings differ between phases."""
        messages = self._named(name)
        if any(any(message.loss_weight) for message in messages):
            raise LayerError(f'the top of "{name}" is a loss')
        settings = {(message.type, tuple(message.bottom), tuple(message.top)) for message in messages}
        if len(settings) > 1:
            raise LayerError(f'"{name}" has different types, bottoms or tops in different phases')

    def _check_not_shared(self, name: str) -> None:
        own = {spec.name for each in self._named(name) for spec in each.param if spec.name}
        for message in self._file.message.layer:
            shared = own & {spec.name for spec in message.param}
            if message.name != name and shared:
                raise LayerError(f'"{name}" shares parameter "{min(shared)}" with "{message.name}"')

    def _check_pair(self, first: str, second: str) -> None:
        """LayerError unless the second layer is the only reader of the first one's top, wherever they are used."""
        for phase, graph in self._graphs.items():
            there = [name for name in (first, second) if name in graph]
            if len(there) == 1:
                raise LayerError(f'phase {_PHASES[phase]} has only "{there[0]}" of "{first}" and "{second}"')
            if there:
                others = [other.name for other in graph[first].readers if other.name != second]
                if others:
                    in_phase = "" if phase == TEST else f" in phase {_PHASES[phase]}"
                    raise LayerError(f'the top of "{first}" is also read by "{others[0]}"{in_phase}')
                producer = graph[second].producer
                if producer is None or producer.name != first:
                    raise LayerError(f'in phase {_PHASES[phase]} "{second}" does not read the top of "{first}"')
        self._check_other_states(first, second)

    def _check_other_states(self, first: str, second: str) -> None:
        """LayerError if a layer of neither phase, as with stages, has to do with the blobs of two layers."""
        messages = self._file.message.layer
        blobs = {
            blob for message in messages if message.name in (first, second) for blob in (*message.bottom, *message.top)
        }
        for i, message in enumerate(messages):
            if not self._in_a_phase[i] and (message.name in (first, second) or blobs & {*message.bottom, *message.top}):
                raise LayerError(f'layer "{message.name}" of another state uses the same blobs')

    def _check_memory(self, layer: Layer, reader: str) -> None:
        """LayerError if another layer uses the memory of the layer's bottom under another name, so that the order of
        execution matters."""
        memory = layer.bottoms[0].storage
        in_place = layer.tops[0].storage == memory
        later = self._net.layers[self._net.layers.index(layer) + 1 :]
        end = [each.name for each in later].index(reader)
        for i, each in enumerate(later):
            used = each.bottoms if in_place else each.tops if i < end else ()
            if i != end and each.name not in self._removed and any(blob.storage == memory for blob in used):
                raise LayerError(f'"{each.name}" uses the memory of its bottom "{layer.bottoms[0].name}"')
        for output in self._net.outputs:
            if in_place and output.storage == memory:
                raise LayerError(f'output "{output.name}" has the memory of its bottom "{layer.bottoms[0].name}"')

    def _replace(self, old: Product, new: Product) -> None:
        """Store the arrays of a product, and give the layer a bias if it has one now."""
        name = new.layer.name
        with np.errstate(over="ignore"):
            if not all(np.isfinite(array.astype(np.float32)).all() for array in new.arrays):
                raise LayerError(f'the weights of "{name}" would exceed float32')
        self._arrays[name] = new.arrays
        if old.bias is None and new.bias is not None:
            for message in self._named(name):
                getattr(message, new.settings).ClearField("bias_term")

    def _remove(self, name: str) -> None:
        message = self._file.message
        removed = [i for i, layer in enumerate(message.layer) if layer.name == name]
        for i in reversed(removed):
            del message.layer[i]
            del self._in_a_phase[i]
        for graph in self._graphs.values():
            graph.remove(name)
        left = (where for i, where in enumerate(self._file.layers) if i not in removed)
        self._file = replace(self._file, layers=tuple(left))

    def _weights(self) -> WeightsFile:
        """The arrays of the layers that are left, in the order of the file, then of those that it lacked."""
        stored = dict(self._source.layers)
        for name, layer in self._layers.items():
            if name in self._arrays:
                stored[name] = tuple(_blob(array.astype(np.float32)) for array in self._arrays[name])
            elif name in stored or any(param.owner in self._removed for param in layer.params):
                arrays = [self._net.weights[param.key].reshape(param.shape) for param in layer.params]
                stored[name] = tuple(map(_blob, arrays))
        return replace(self._source, layers={k: v for k, v in stored.items() if k not in self._removed})

    def _of_other_states(self) -> list[NotFolded]:
        """The layers that could be folded by their types, but are not in the net of phase TEST."""
        known = {layer.name for layer in self._net.layers}
        return [
            NotFolded(message.name, message.type, "it is not in phase TEST", where)
            for message, where in zip(self._file.message.layer, self._file.layers, strict=True)
            if message.name not in known and can_be_folded(message.type)
        ]


def can_be_folded(type_name: str) -> bool:
    """Whether layers of a type compute a scale and a shift of each channel, at least with some settings."""
    if type_name not in LAYERS:
        return False
    return type(LAYERS.get(type_name)).channel_affine is not LayerType.channel_affine


def _blob(array: Array) -> StoredBlob:
    return StoredBlob(array, legacy=False)


def _array(blob: StoredBlob, *, keep_shape: bool) -> AnyArray:
    """The array, without the leading axes of extent 1 by which old files pad every shape to four axes."""
    array = blob.array
    if not blob.legacy or keep_shape or array.shape[:2] != (1, 1):
        return array
    return array.reshape(array.shape[2:] if array.shape[2] > 1 else array.shape[3:])
