"""Integer powers of two: weights whose products are shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.activations import FlLayer
from ristretto_cli.formats.fixed import Fixed, integer_length, write_fixed
from ristretto_cli.formats.number_format import (
    LayerFormats,
    NumberFormat,
    Ranges,
    Role,
    Rounding,
    SearchGroup,
    TrimmingMode,
    rounding_of,
    trimming_mode,
)
from ristretto_cli.ops import Grid, Ops, V

_WEIGHT_BITS = 4  # a sign and the eight exponents -8 to -1
_EXP_MIN, _EXP_MAX = -8, -1
_ACTIVATION_BITS = 8


@dataclass(frozen=True)
class PowerOfTwo(NumberFormat):
    """+2^e and -2^e for e from exp_min to exp_max; no zero. If exp_min is larger, it is the only exponent."""

    exp_min: int
    exp_max: int

    def __post_init__(self) -> None:
        for name, value in (("exp_min", self.exp_min), ("exp_max", self.exp_max)):
            if not -1000 <= value <= 1000:
                raise LayerError(f"{name} {value} is out of range", hint="Use -1000 to 1000.")

    @property
    def largest(self) -> float:
        return 2.0 ** max(self.exp_min, self.exp_max)

    def width(self) -> int:
        return 1 + max(0, self.exp_max - self.exp_min).bit_length()  # the sign, and the exponent counted from 0 up

    def grid(self) -> Grid:
        largest = 2 ** max(0, self.exp_max - self.exp_min)
        return Grid(-self.exp_min, -largest, largest)

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        """The nearest power of two on the logarithmic scale; zero becomes +2^exp_min, NaN -2^exp_max."""
        exponent = rounding.apply(ops, ops.log2(ops.abs(x)))
        exponent = ops.clip(exponent, self.exp_min, max(self.exp_min, self.exp_max))
        magnitude = ops.pow(ops.constant(2.0), exponent)
        zero = ops.constant(0.0)
        return ops.where(ops.greater_equal(x, zero), magnitude, ops.sub(zero, magnitude))


@trimming_mode("integer_power_of_2_weights", "power_of_2_weights")
class IntegerPowerOfTwoWeights(TrimmingMode):
    """Weights 2^-8 to 2^-1, activations in 8-bit dynamic fixed point, float biases."""

    precision = "INTEGER_POWER_OF_2_WEIGHTS"
    fallback_bits = _WEIGHT_BITS
    groups = (SearchGroup("net", ("Quantized net:",), "quantized net", frozenset({"CONV", "FC"}), frozenset(Role)),)

    def layer_formats(self, quantization: Message) -> LayerFormats:
        return LayerFormats(
            layer_in=Fixed(quantization.bw_layer_in, quantization.fl_layer_in),
            layer_out=Fixed(quantization.bw_layer_out, quantization.fl_layer_out),
            weights=PowerOfTwo(quantization.exp_min, quantization.exp_max),
            bias=None,
            rounding=rounding_of(quantization),
        )

    def widths(self, offered: Sequence[int], ranges: Sequence[Ranges]) -> list[int]:
        return [_WEIGHT_BITS]  # the only width, regardless of the offer

    def write(
        self,
        quantization: Message,
        widths: Mapping[Role, int],
        ranges: Ranges,
        *,
        everywhere: Sequence[Ranges],
        legacy: bool,
    ) -> None:
        quantization.exp_min = _EXP_MIN
        quantization.exp_max = _EXP_MAX
        activations = {Role.LAYER_IN: _ACTIVATION_BITS, Role.LAYER_OUT: _ACTIVATION_BITS}
        write_fixed(quantization, activations, ranges, legacy=legacy, fl_layer=FlLayer.ORIGINAL)

    def integer_lengths(self, ranges: Ranges) -> Mapping[Role, int]:
        return {role: integer_length(ranges.of(role), role) for role in (Role.LAYER_IN, Role.LAYER_OUT)}

    def heading(self, baseline: str) -> list[str]:
        return [
            "Network accuracy analysis for",
            "Integer-power-of-two weights",
            "in Convolutional (CONV) and",
            "fully connected (FC) layers.",
            f"Baseline 32bit float: {baseline}",
        ]
