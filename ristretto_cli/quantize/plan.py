"""Which layers of a net are trimmed, to what widths, and the net's text with that written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.formats.number_format import Ranges, Role, TrimmingMode
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.wire.messages import Message, message_class
from ristretto_cli.wire.net_file import NetFile

# What can be trimmed: the float type, its family in the summary, and the type that trims.
FAMILIES = {
    "Convolution": "CONV",
    "ConvolutionDepthwise": "CONV",
    "DepthwiseConvolution": "CONV",
    "InnerProduct": "FC",
}
_TRIMMED_TYPES = {"CONV": "ConvolutionRistretto", "FC": "FcRistretto"}
# The original looks for these two names alone.
LEGACY_TYPES = frozenset({"Convolution", "InnerProduct"})

Widths = Mapping[str, Mapping[Role, int]]  # family to role to bits


@dataclass(frozen=True)
class Trimmable:
    """A layer that can be trimmed: its family and what was measured of it."""

    layer: Layer
    family: str
    ranges: Ranges


def trimmable_layers(net: Net, *, legacy: bool) -> list[Layer]:
    """The layers of a net that can be trimmed, in order; RistrettoErrors for those that are trimmed already."""
    already = [layer for layer in net.layers if layer.type in _TRIMMED_TYPES.values()]
    raise_all(
        RistrettoError(
            f'layer "{layer.name}" is trimmed already ({layer.type})',
            where=layer.where,
            remedy="Give the float net.",
        )
        for layer in already
    )
    known = LEGACY_TYPES if legacy else FAMILIES.keys()  # DIFFERS(D11)
    return [layer for layer in net.layers if layer.type in known]


def trimmed(
    net_file: NetFile, layers: Sequence[Trimmable], widths: Widths, mode: TrimmingMode, *, legacy: bool
) -> NetFile:
    """The net with layers of the families in `widths` trimmed to them, in every phase that they are in."""
    by_name = {each.layer.name: each for each in layers if each.family in widths}
    everywhere = [each.ranges for each in layers]
    message = message_class("NetParameter")()
    message.CopyFrom(net_file.message)
    for layer in message.layer:
        chosen = by_name.get(layer.name)
        if chosen is None or layer.type != chosen.layer.type:
            continue
        _write_group(layer, chosen.layer)
        layer.type = _TRIMMED_TYPES[chosen.family]
        mode.write(
            layer.quantization_param,
            widths[chosen.family],
            chosen.ranges,
            everywhere=everywhere,
            legacy=legacy,
        )
    message.ClearField("state")
    return replace(net_file, message=message)


def _write_group(message: Message, layer: Layer) -> None:
    # A depthwise layer may leave its group to its type; the type that trims knows no such default.
    if layer.type in FAMILIES and layer.type not in LEGACY_TYPES:
        message.convolution_param.group = layer.bottoms[0].shape[1]


def each_family(families: frozenset[str], layers: Sequence[Trimmable]) -> Iterator[str]:
    """Those of the families that have layers."""
    present = {each.family for each in layers}
    yield from sorted(families & present)
