"""Nets in which only some parts of a trimmed net are trimmed: the float net, one part or one layer, all but one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.formats.number_format import NumberFormat, Role, Rounding, layer_formats
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net, Param
from ristretto_cli.net.param_formats import params_in_use
from ristretto_cli.ops import Array

Part = tuple[str, Role]  # a part of a layer: the layer's name, and the role
_SIDES = (Role.LAYER_IN, Role.LAYER_OUT)


@dataclass(frozen=True)
class PartFormat:
    """The number format of a part of a layer, and its rounding. layer: the layer's position in the net."""

    layer: int
    number_format: NumberFormat
    rounding: Rounding


class RoleNets:
    """The nets between a float net and a trimmed one.

    trimmed: the trimmed net, of phase TEST, with its weights. float_weights: those of the float net, by Param.key.
    formats: the format of each part that is trimmed, in the order of the layers. rng: for stochastic rounding.
    """

    def __init__(self, trimmed: Net, float_weights: Mapping[str, Array], *, rng: np.random.Generator) -> None:
        self.trimmed = trimmed
        self.formats = _formats(trimmed)
        self.float_weights = float_weights
        self.used = {(layer.name, i): array for layer, i, array in params_in_use(trimmed, rng=rng)}

    @property
    def layers(self) -> dict[str, int]:
        """The positions of the trimmed layers, by name, in order."""
        return {name: each.layer for (name, _), each in self.formats.items()}

    def parts_of(self, layer: str) -> list[Part]:
        """The trimmed parts of a layer."""
        return [part for part in self.formats if part[0] == layer]

    def net(self, parts: Collection[Part]) -> Net:
        """The net in which just these parts are trimmed; without parts, the float net."""
        weights = dict(self.float_weights)
        chosen = frozenset(parts)
        layers = tuple(self._layer(layer, chosen, weights) for layer in self.trimmed.layers)
        return replace(self.trimmed, layers=layers, weights=weights)

    def params(self, part: Part) -> tuple[list[Array], list[Array]]:
        """The parameters of a part: those of the float net, and as the trimmed net uses them."""
        layer = self.trimmed.layers[self.formats[part].layer]
        chosen = [i for i in range(len(layer.params)) if _role_of(i) is part[1]]
        originals = [self.float_weights[layer.params[i].key].reshape(layer.params[i].shape) for i in chosen]
        return originals, [self.used[layer.name, i] for i in chosen]

    def _layer(self, layer: Layer, chosen: frozenset[Part], weights: dict[str, Array]) -> Layer:
        if not is_trimmed(layer):
            return layer
        message = type(layer.message)()
        message.CopyFrom(layer.message)
        quantization = message.quantization_param
        quantization.trim_params = False  # the arrays are trimmed already
        for role in _SIDES:
            if (layer.name, role) not in chosen:
                setattr(quantization, f"trim_{role.value}", False)
        params: list[Param] = []
        for i, param in enumerate(layer.params):
            if (layer.name, _role_of(i)) in chosen:
                # An owner of its own: other layers that share the parameter keep theirs.
                param = replace(param, owner=f"{layer.name} trimmed")
                weights[param.key] = self.used[layer.name, i]
            params.append(param)
        return replace(layer, message=message, params=tuple(params))


def is_trimmed(layer: Layer) -> bool:
    """Whether a layer quantizes some of its parts by its quantization_param."""
    return not layer.is_source and layer.type in LAYERS and LAYERS.get(layer.type).quantized


def _role_of(param: int) -> Role:
    return Role.PARAMS if param == 0 else Role.BIAS


def _formats(net: Net) -> dict[Part, PartFormat]:
    found: dict[Part, PartFormat] = {}
    for i, layer in enumerate(net.layers):
        if not is_trimmed(layer):
            continue
        formats = layer_formats(layer.message.quantization_param)
        by_role = {
            Role.LAYER_IN: formats.layer_in,
            Role.PARAMS: formats.weights if layer.params else None,
            Role.BIAS: formats.bias if len(layer.params) > 1 else None,
            Role.LAYER_OUT: formats.layer_out,
        }
        for role, number_format in by_role.items():
            if number_format is not None:
                found[layer.name, role] = PartFormat(i, number_format, formats.rounding)
    return found
