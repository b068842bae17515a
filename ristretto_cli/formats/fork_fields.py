"""The number formats of a layer, where forks of Ristretto have fields of their own for them.

What each fork computes: docs/decisions/0077-trimmed-types-of-forks.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.fixed import Fixed, integer_length, stepwise
from ristretto_cli.formats.number_format import LayerFormats, NumberFormat, Role, Rounding, layer_formats
from ristretto_cli.ops import Array, Ops, V

_TOP_FIELDS = ("bw_layer_data", "fl_layer_data", "is_sign_data")
_SCALES = ("scale_in", "scale_out", "scale_params")
_STORED_INTEGERS = ("fl_weights", "fl_biases")
_PARAM_BITS, _PARAM_LENGTH = 16, 8  # defaults next to _TOP_FIELDS


@dataclass(frozen=True)
class RoundedDown(Fixed):
    """Fixed point whose values are always rounded down, as a shift to the right does."""

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        return stepwise(ops, x, self.grid(), ops.floor)


@dataclass(frozen=True)
class FittedFixed(NumberFormat):
    """Fixed point of `bits` bits, with as many of them before the binary point as the largest value needs."""

    bits: int

    @property
    def largest(self) -> float:
        return float("inf")

    def width(self) -> int:
        return self.bits

    def fitted(self, array: Array) -> Fixed:
        largest = float(np.abs(array).max(initial=0.0))
        return Fixed(self.bits, self.bits - integer_length(largest or 1.0, Role.PARAMS))

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        raise LayerError(
            "bw_layer_data: biases whose format depends on their values cannot be trained",
            hint="Replace bw_layer_data and fl_layer_data by bw_layer_out and fl_layer_out.",
        )


def formats_of(quantization: Message) -> LayerFormats:
    """The formats described by a QuantizationParameter, in the original's fields or in those of a fork.

    LayerError for settings that no format allows, and for fields whose meaning is not supported.
    """
    _reject_unsupported(quantization)
    if has_top_fields(quantization):
        return _of_top_fields(quantization)
    formats = layer_formats(quantization)
    return formats if quantization.quanti_out else replace(formats, layer_out=None)


def has_top_fields(quantization: Message) -> bool:
    """Whether the formats are in the fields that trim tops and parameters only (bw_layer_data, ...)."""
    return any(quantization.HasField(name) for name in _TOP_FIELDS)


def given_scales(quantization: Message) -> list[str]:
    """The fields of a QuantizationParameter that are scales other than powers of two."""
    return [name for name in _SCALES if len(getattr(quantization, name))]


def _of_top_fields(quantization: Message) -> LayerFormats:
    bits = quantization.bw_params if quantization.HasField("bw_params") else _PARAM_BITS
    length = quantization.fl_params if quantization.HasField("fl_params") else _PARAM_LENGTH
    trims_params = bits > 0 and quantization.trim_params  # 0 for layers without parameters
    top = RoundedDown(quantization.bw_layer_data, quantization.fl_layer_data, signed=bool(quantization.is_sign_data))
    return LayerFormats(
        layer_in=None,
        layer_out=top if quantization.trim_layer_out else None,
        weights=Fixed(bits, length) if trims_params else None,
        bias=FittedFixed(bits) if trims_params else None,
        rounding=Rounding.NEAREST,
    )


def _reject_unsupported(quantization: Message) -> None:
    scales = given_scales(quantization)
    if quantization.int8_term:
        scales.append("int8_term")
    if scales:
        raise LayerError(
            f"{' and '.join(scales)}: scales that are not powers of two are not supported",
            hint="Remove them, and set bw_layer_in, fl_layer_in, bw_params, fl_params, bw_layer_out and fl_layer_out.",
        )
    stored = [name for name in _STORED_INTEGERS if quantization.HasField(name)]
    if stored:
        raise LayerError(
            f"{' and '.join(stored)}: parameters that the weights file stores as integers are not supported",
            hint="Multiply them by 2^-fl_weights and 2^-fl_biases in the file, and set fl_params and fl_bias instead.",
        )
    if quantization.HasField("quantize_file"):
        raise LayerError(
            "quantize_file: formats in another file are not supported",
            hint="Remove it, and set the formats in the quantization_param of the layers.",
        )
