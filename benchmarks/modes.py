"""The ways to trim a net that are timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.formats.number_format import Role, configured_mode
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import load_weights
from ristretto_cli.quantize.rewrite import apply_bit_widths
from ristretto_cli.quantize.trimmable import Trimmable, family_of, trimmable_layers
from ristretto_cli.scoring.calibrate import Probe, measure_ranges
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.sources.open import DataLayers

_CALIBRATION_BATCHES = 2
_ACTIVATIONS = (Role.LAYER_IN, Role.LAYER_OUT)


@dataclass(frozen=True)
class Mode:
    """A trimming mode with widths in bits; roles without one are not trimmed. options: those of the mode."""

    trimming_mode: str
    widths: Mapping[Role, int]
    options: Mapping[str, str] = field(default_factory=dict)


_ROLES = (Role.LAYER_IN, Role.LAYER_OUT, Role.PARAMS)  # biases share the format of weights

MODES_TIMED = {
    "8/8 bit": Mode("dynamic_fixed_point", dict.fromkeys(_ROLES, 8)),
    "16/16 bit": Mode("dynamic_fixed_point", dict.fromkeys(_ROLES, 16)),
    "activations 16": Mode("dynamic_fixed_point", dict.fromkeys(_ACTIVATIONS, 16)),
    "weights 8": Mode("dynamic_fixed_point", {Role.PARAMS: 8}),
    "minifloat 16": Mode("minifloat", dict.fromkeys(_ROLES, 16)),
    "minifloat 8": Mode("minifloat", dict.fromkeys(_ROLES, 8)),
    "power of two": Mode("integer_power_of_2_weights", dict.fromkeys(_ROLES, 4)),
}


class Trimmer:
    """LayerFormats one net, with ranges of its own, which are measured once."""

    def __init__(self, model: str, weights: str) -> None:
        self._net_file = read_net(model)
        self._weights = read_weights(weights)
        self._rng = np.random.default_rng(0)
        self.float_net = load_net(model, weights, NetState(TEST), rng=self._rng)
        layers = trimmable_layers(self.float_net, legacy=False)
        ranges = measure_ranges(
            self.float_net,
            frozenset(layer.name for layer in layers),
            _CALIBRATION_BATCHES,
            probe=Probe(),
            rng=self._rng,
        )
        self._layers = [Trimmable(layer, family_of(layer), ranges[layer.name]) for layer in layers]

    def net(self, mode: Mode) -> Net | None:
        """The net in a mode; None where the mode's width leaves no bits for what the ranges need."""
        trimming = configured_mode(mode.trimming_mode, mode.options)
        offered: Sequence[int] = sorted(set(mode.widths.values()))
        if not trimming.widths(offered, [each.ranges for each in self._layers]):
            return None
        widths = {each.layer.name: mode.widths for each in self._layers}
        net_file = apply_bit_widths(self._net_file, self._layers, widths, trimming, legacy=False)
        return load_weights(build(net_file, NetState(TEST), DataLayers()), self._weights, rng=self._rng)
