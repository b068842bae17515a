"""Warnings about number formats that cannot be meant: after hand edits, mostly."""

from __future__ import annotations

import logging
import math

import numpy as np

from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.formats.fixed import Fixed, integer_length
from ristretto_cli.formats.fork_fields import given_scales
from ristretto_cli.formats.number_format import NumberFormat, Role
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array

log = logging.getLogger("ristretto")

_MAX_LOST = 0.5  # of the weights' sum of squares, by saturation
_SAMPLE_SIZE = 2**16  # elements of a parameter that are looked at
_DOUBLE_EXPONENTS = 1024  # powers of two from this on are no float64
_PLAUSIBLE_BITS = 40  # activations are neither all below 2^-40 nor all above 2^40


def warn_of_formats(net: Net) -> None:
    """Log a warning for each layer whose quantization_param has no effect, or ruins its weights or activations."""
    for layer in net.layers:
        if layer.is_source or not layer.message.HasField("quantization_param"):
            continue
        layer_type = LAYERS.get(layer.type)
        if not layer_type.quantized:
            instead = f" Did you mean {layer_type.quantized_type}?" if layer_type.quantized_type else ""
            if given_scales(layer.message.quantization_param):
                instead = " Its scales, of a fork, are not applied: the layer computes in float."
            log.warning(
                '%s: layer "%s" (%s): quantization_param has no effect on this type.%s',
                layer.where,
                layer.name,
                layer.type,
                instead,
            )
            continue
        for problem in _problems(net, layer):
            log.warning('%s: layer "%s": %s', layer.where, layer.name, problem)


def _problems(net: Net, layer: Layer) -> list[str]:
    quantization = layer.message.quantization_param
    formats = LAYERS.get(layer.type).formats(layer.message)
    found = []
    is_power_of_two = enum_name(quantization, "precision") == "INTEGER_POWER_OF_2_WEIGHTS"
    if is_power_of_two and quantization.exp_min > quantization.exp_max:
        found.append(
            f"exp_min {quantization.exp_min} is larger than exp_max {quantization.exp_max}, so every weight becomes "
            f"2^{quantization.exp_min} or -2^{quantization.exp_min}"
        )
    for side, number_format in (("layer_in", formats.layer_in), ("layer_out", formats.layer_out)):
        if isinstance(number_format, Fixed):
            found += _implausible(side, number_format)
    if formats.weights is not None and layer.params and layer.params[0].key in net.weights:
        found += _lost(net.weights[layer.params[0].key], formats.weights)
    return found


def _implausible(side: str, number_format: Fixed) -> list[str]:
    """The problem of a format for activations that no activations can fit."""
    largest, bits = number_format.largest, number_format.frac_bits
    if largest < 2.0**-_PLAUSIBLE_BITS:
        return [f"bw_{side} {number_format.bits} with fl_{side} {bits} represents no number above {largest:.3g}"]
    if bits < -_PLAUSIBLE_BITS:
        return [f"fl_{side} {bits} rounds all numbers to multiples of 2^{-bits}"]
    return []


def _lost(weights: Array, number_format: NumberFormat) -> list[str]:
    """The problem of a format that loses most of the weights by saturation, or rounds all to 0."""
    magnitudes = np.abs(weights.ravel()[:: max(1, weights.size // _SAMPLE_SIZE)]).astype(np.float64)
    largest = float(magnitudes.max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return []
    highest, fits = number_format.largest, ""
    if isinstance(number_format, Fixed):
        highest = number_format.grid().largest  # of 1 bit, the only number but 0 is negative
        fits = f" fl_params {number_format.bits - integer_length(largest, Role.PARAMS)} would fit."
    lost = np.square(np.maximum(magnitudes - highest, 0), dtype=np.float64).sum()
    if lost > _MAX_LOST * np.square(magnitudes, dtype=np.float64).sum():
        fraction = float((magnitudes > highest).mean())
        return [
            f"{100 * fraction:.0f} % of the weights saturate: they are up to {largest:.3g}, and the largest number of "
            f"their format is {highest:.3g}.{fits}"
        ]
    if isinstance(number_format, Fixed) and math.frexp(largest)[1] < -number_format.frac_bits:
        bits = -number_format.frac_bits
        step = f"{math.ldexp(1.0, bits):.3g}" if bits < _DOUBLE_EXPONENTS else f"2^{bits}"
        return [f"all weights become 0: they are up to {largest:.3g}, and the step of their format is {step}.{fits}"]
    return []
