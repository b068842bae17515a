"""The costs of a net with given bit widths: bits of parameters and activations, and bit operations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ristretto_cli.formats.number_format import LOSSLESS_BITS
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.net.macs import macs_of
from ristretto_cli.net.reshape import with_likely_shapes
from ristretto_cli.net.widths import Widths
from ristretto_cli.ops import DYNAMIC

SCALE_BITS = 32  # of a format's scale
_FLOAT = Widths(LOSSLESS_BITS, LOSSLESS_BITS, LOSSLESS_BITS, LOSSLESS_BITS)


@dataclass(frozen=True)
class Costs:
    """The costs of a layer or a net.

    parameter_bits: of the parameters, with the float32 scales of their formats. bit_operations: multiply-accumulates
    times the bits of their weights and of their inputs. activation_bits: of the blobs. The latter two are for the whole
    batch, or, for a net, for one input.
    """

    parameter_bits: int = 0
    bit_operations: int = 0
    activation_bits: int = 0

    @property
    def parameter_bytes(self) -> int:
        """The size of the parameters, in whole bytes."""
        return math.ceil(self.parameter_bits / 8)


@dataclass(frozen=True)
class Stored:
    """A blob with memory of its own.

    elements: their number. writer: the position of the last layer that writes it. readers: of those that read it then.
    """

    elements: int
    writer: int
    readers: tuple[int, ...]


class CostModel:
    """Computes the costs of a net for widths of its layers.

    macs: of each layer, for the whole batch. parameters: for each layer, the elements of its own parameters. batch: the
    first axis of the net's first input. inputs: the number of inputs in a batch, or 1 if that axis counts something
    else. stored: for each layer the blobs that it is the first to write.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self.macs = [macs_of(layer) for layer in with_likely_shapes(net).layers]
        self.parameters = [tuple(_own_params(layer)) for layer in net.layers]
        self.batch = _batch(net)
        self.inputs = 1 if any(macs % self.batch for macs in self.macs) else self.batch
        self.stored = _stored_blobs(net)

    def of_layers(self, widths: Sequence[Widths | None]) -> list[Costs]:
        """The costs of each layer, for the whole batch. widths: of each layer; None for those in float32."""
        known = [each or _FLOAT for each in widths]
        return [
            Costs(
                sum(count * (bits.bias if i else bits.weights) for i, count in enumerate(self.parameters[position]))
                + SCALE_BITS * _scales(self.net.layers[position], bits),
                self.macs[position] * bits.weights * bits.layer_in,
                sum(blob.elements * _bits_of(blob, widths) for blob in self.stored[position]),
            )
            for position, bits in enumerate(known)
        ]

    def of_net(self, widths: Sequence[Widths | None]) -> Costs:
        """The costs of the whole net, for one input."""
        layers = self.of_layers(widths)
        return Costs(
            sum(each.parameter_bits for each in layers),
            sum(each.bit_operations for each in layers) // self.inputs,
            sum(each.activation_bits for each in layers) // self.inputs,
        )


def _scales(layer: Layer, widths: Widths) -> int:
    """The number of scales that are stored with a layer's weights; none with those of another layer."""
    if widths.weight_format is None or not layer.params or layer.params[0].owner != layer.name:
        return 0
    number_format = widths.weight_format.with_filters_on(LAYERS.get(layer.type).filter_axis(layer.message))
    return number_format.scales(layer.params[0].shape)


def _own_params(layer: Layer) -> Iterator[int]:
    """The number of elements of each parameter; 0 for those of another layer."""
    for param in layer.params:
        yield math.prod(param.shape) if param.owner == layer.name else 0


def _batch(net: Net) -> int:
    """The first axis of the net's first input."""
    shapes = [blob.shape for blob in net.inputs if blob.shape and blob.shape[0] != DYNAMIC]
    return shapes[0][0] if shapes else 1


def _stored_blobs(net: Net) -> list[list[Stored]]:
    """For each layer the blobs for which it is the first to write; those of data layers do not count."""
    found: list[list[Stored]] = [[] for _ in net.layers]
    first: dict[int, tuple[int, Blob]] = {}
    last: dict[int, int] = {}
    readers: dict[int, list[int]] = {}
    for position, layer in enumerate(net.layers):
        for storage in {bottom.storage for bottom in layer.bottoms} - {top.storage for top in layer.tops}:
            readers.setdefault(storage, []).append(position)
        for top in layer.tops:
            first.setdefault(top.storage, (position, top))
            # Layers such as Split only give memory another name.
            if all(top.storage != bottom.storage or top.name == bottom.name for bottom in layer.bottoms):
                last[top.storage] = position
    for storage, (position, blob) in first.items():
        if net.layers[position].is_source or DYNAMIC in blob.shape:
            continue
        writer = last.get(storage, position)
        after = tuple(reader for reader in readers.get(storage, ()) if reader > writer)
        found[position].append(Stored(math.prod(blob.shape), writer, after))
    return found


def _bits_of(blob: Stored, widths: Sequence[Widths | None]) -> int:
    """The bits of each element: those of the layer that writes it, or else the most that its readers use."""
    written = widths[blob.writer]
    if written is not None:
        return written.layer_out
    read = [widths[reader] for reader in blob.readers]
    return max((LOSSLESS_BITS if each is None else each.layer_in for each in read), default=LOSSLESS_BITS)
