"""The layers of a net that can be trimmed, and those that stay float."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.formats.number_format import Ranges, Role, SearchGroup
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.net.macs import macs_of
from ristretto_cli.net.reshape import with_likely_shapes

# The only types that the original quantizes.
_LEGACY_TYPES = frozenset({"Convolution", "InnerProduct"})


@dataclass(frozen=True)
class Trimmable:
    """A layer that can be trimmed, with its family and its measured ranges."""

    layer: Layer
    family: str
    ranges: Ranges


@dataclass(frozen=True)
class LeftFloat:
    """A layer with parameters that is not trimmed.

    parameters: their number; share: of all parameters of the net; macs_share: of all its multiply-accumulates.
    """

    name: str
    type: str
    parameters: int
    share: float
    macs_share: float = 0.0


def family_of(layer: Layer) -> str:
    """The family of a layer, "CONV" or "FC"; empty if it cannot be trimmed."""
    return "" if layer.is_source or LAYERS.get(layer.type).quantized else LAYERS.get(layer.type).family


def is_in(group: SearchGroup, family: str, layer: Layer) -> bool:
    """Whether a layer of a family has values of a group: only layers with biases have some of a group of biases."""
    return family in group.families and (group.roles != {Role.BIAS} or len(layer.params) > 1)


def trimmable_layers(net: Net, *, legacy: bool) -> list[Layer]:
    """The layers of a net that can be trimmed, in order; RistrettoErrors for those that are trimmed already."""
    raise_all(
        RistrettoError(
            f'layer "{layer.name}" is already quantized ({layer.type})',
            where=layer.where,
            hint="Use the float net as --model.",
        )
        for layer in net.layers
        if not layer.is_source and LAYERS.get(layer.type).quantized
    )
    layers = [layer for layer in net.layers if family_of(layer)]
    return [layer for layer in layers if layer.type in _LEGACY_TYPES] if legacy else layers  # DIFFERS(D11)


def left_float(net: Net, trimmed_layers: Collection[str]) -> list[LeftFloat]:
    """The layers with parameters that are not trimmed, in order. Shared parameters belong to their owner."""
    sizes = {
        layer.name: sum(prod(param.shape) for param in layer.params if param.owner == layer.name)
        for layer in net.layers
        if layer.params
    }
    total = sum(sizes.values())
    macs = [macs_of(layer) for layer in with_likely_shapes(net).layers]
    all_macs = max(1, sum(macs))
    return [
        LeftFloat(layer.name, layer.type, size, size / total, own / all_macs)
        for layer, own in zip(net.layers, macs, strict=True)
        if (size := sizes.get(layer.name, 0)) and layer.name not in trimmed_layers
    ]
