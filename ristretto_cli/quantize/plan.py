"""Which layers of a net are trimmed, to what widths, and the net's text with that written in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.formats.number_format import Ranges, Role, TrimmingMode, set_precision
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.wire.messages import message_class
from ristretto_cli.wire.net_file import NetFile

# The original looks for these two types alone.
_LEGACY_TYPES = frozenset({"Convolution", "InnerProduct"})

Widths = Mapping[str, Mapping[Role, int]]  # family to role to bits


@dataclass(frozen=True)
class Trimmable:
    """A layer that can be trimmed: its family and what was measured of it."""

    layer: Layer
    family: str
    ranges: Ranges


@dataclass(frozen=True)
class LeftFloat:
    """A layer with parameters that is not trimmed: how many numbers they are, and their share of the net's."""

    name: str
    type: str
    parameters: int
    share: float


def left_float(net: Net, trimmed_layers: Collection[str]) -> list[LeftFloat]:
    """The layers with parameters that are not trimmed, in order. Shared parameters belong to their owner."""
    sizes = {
        layer.name: sum(prod(param.shape) for param in layer.params if param.owner == layer.name)
        for layer in net.layers
        if layer.params
    }
    total = sum(sizes.values())
    return [
        LeftFloat(layer.name, layer.type, size, size / total)
        for layer in net.layers
        if (size := sizes.get(layer.name, 0)) and layer.name not in trimmed_layers
    ]


def family_of(layer: Layer) -> str:
    """The family of a layer, "CONV" or "FC"; empty for one that cannot be trimmed."""
    return "" if layer.is_source or LAYERS.get(layer.type).trims else LAYERS.get(layer.type).family


def trimmable_layers(net: Net, *, legacy: bool) -> list[Layer]:
    """The layers of a net that can be trimmed, in order; RistrettoErrors for those that are trimmed already."""
    raise_all(
        RistrettoError(
            f'layer "{layer.name}" is trimmed already ({layer.type})',
            where=layer.where,
            remedy="Give the float net.",
        )
        for layer in net.layers
        if not layer.is_source and LAYERS.get(layer.type).trims
    )
    layers = [layer for layer in net.layers if family_of(layer)]
    return [layer for layer in layers if layer.type in _LEGACY_TYPES] if legacy else layers  # DIFFERS(D11)


def trimmed(
    net_file: NetFile, layers: Sequence[Trimmable], widths: Widths, mode: TrimmingMode, *, legacy: bool
) -> NetFile:
    """The net with layers of the families in `widths` trimmed to them, in every phase that they are in.

    What of them has no width is not trimmed; with legacy it has the schema's defaults.
    """
    by_name = {each.layer.name: each for each in layers if each.family in widths}
    everywhere = [each.ranges for each in layers]
    message = message_class("NetParameter")()
    message.CopyFrom(net_file.message)
    for layer in message.layer:
        chosen = by_name.get(layer.name)
        if chosen is None or layer.type != chosen.layer.type:
            continue
        layer_type = LAYERS.get(layer.type)
        layer_type.make_explicit(layer, [bottom.shape for bottom in chosen.layer.bottoms])
        layer.type = layer_type.trimmed_type
        set_precision(layer.quantization_param, mode)
        for role in Role:
            if role not in widths[chosen.family] and not legacy:
                setattr(layer.quantization_param, f"trim_{role.value}", False)
        mode.write(
            layer.quantization_param,
            widths[chosen.family],
            chosen.ranges,
            everywhere=everywhere,
            legacy=legacy,
        )
    message.ClearField("state")
    return replace(net_file, message=message)


def each_family(families: frozenset[str], layers: Sequence[Trimmable]) -> Iterator[str]:
    """Those of the families that have layers."""
    present = {each.family for each in layers}
    yield from sorted(families & present)
