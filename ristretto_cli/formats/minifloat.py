"""Minifloat: sign, a few exponent bits, a few mantissa bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.number_format import (
    HEADROOM,
    LOSSLESS_BITS,
    UNSATURATED_BITS,
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
from ristretto_cli.ops import Floats, Ops, V

FLOAT32_MANTISSA_BITS, FLOAT32_EXPONENT_BITS = 23, 8


@dataclass(frozen=True)
class Minifloat(NumberFormat):
    """mant_bits of mantissa after the leading one, exp_bits of exponent with bias 2^(exp_bits - 1) - 1.

    There are no denormals and no codes for infinity and NaN: exponent 0 is an ordinary one, and so is the
    highest. Underflow gives +0. A value with too high an exponent gives the largest number; a value that
    only rounds up past it keeps the carry, as in the original.

    >>> Minifloat(mant_bits=3, exp_bits=4).largest
    480.0
    """

    mant_bits: int
    exp_bits: int

    def __post_init__(self) -> None:
        if not 0 <= self.mant_bits <= 64:
            raise LayerError(f"mant_bits {self.mant_bits} is out of range", hint="Use 0 to 64.")
        if not 0 <= self.exp_bits <= 30:
            raise LayerError(f"exp_bits {self.exp_bits} is out of range", hint="Use 0 to 30.")

    @property
    def floats(self) -> Floats:
        """The numbers of the format."""
        return Floats(self.mant_bits, self.exp_bits)

    @property
    def largest(self) -> float:
        """The number at which values of a higher exponent saturate; infinity if it exceeds float32."""
        return self.floats.largest

    def width(self) -> int:
        return 1 + self.exp_bits + self.mant_bits

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        """Round x to mant_bits of mantissa; underflow gives +0, overflow saturates.

        Infinity and NaN saturate like large numbers; if float32 has no exponent above the format's highest
        one, they become infinity.
        """
        if rounding is Rounding.NEAREST:
            return ops.quantize_float(x, self.floats)
        return _in_range(ops, x, self.floats, _mantissa_at_random(ops, x, self.mant_bits))


def floatwise(ops: Ops[V], x: V, floats: Floats) -> V:
    """quantize_float in terms of other primitives, for backends without a better one."""
    return _in_range(ops, x, floats, _mantissa(ops, x, floats))


def _in_range(ops: Ops[V], x: V, floats: Floats, rounded: V) -> V:
    """`rounded`, which is x with fewer bits, wherever x neither underflows nor overflows."""
    magnitude = ops.abs(x)
    beyond = 2.0 ** (floats.top_exponent + 1) if floats.top_exponent < 127 else math.inf
    saturated = ops.clip(x, -floats.largest, floats.largest)
    in_range = ops.where(ops.less(magnitude, ops.constant(beyond)), rounded, saturated)
    return ops.where(ops.less(magnitude, ops.constant(floats.smallest)), ops.constant(0.0), in_range)


def _mantissa(ops: Ops[V], x: V, floats: Floats) -> V:
    if floats.mant_bits >= FLOAT32_MANTISSA_BITS:
        return x
    if floats.mant_bits == 0:
        # The leading one is not stored, so of 1 and 2 the even mantissa is that of 1: ties
        # go down. Subtracting half an ulp moves only the ties to the lower side.
        x = ops.mul(x, ops.constant(1 - 2.0**-24))
    low = nearest(ops, x, floats.mant_bits)
    if floats.top_exponent < 100:
        return low
    # Close to the end of float32 the product inside would overflow.
    small = ops.mul(x, ops.constant(2.0**-64))
    high = ops.mul(nearest(ops, small, floats.mant_bits), ops.constant(2.0**64))
    return ops.where(ops.less(ops.abs(x), ops.constant(2.0**64)), low, high)


def _mantissa_at_random(ops: Ops[V], x: V, mant_bits: int) -> V:
    magnitude = ops.abs(x)
    one = _power_of_two_below(ops, magnitude)
    mantissa = ops.mul(ops.sub(ops.div(magnitude, one), ops.constant(1.0)), ops.constant(2.0**mant_bits))
    mantissa = Rounding.STOCHASTIC.apply(ops, mantissa)
    fraction = ops.add(ops.mul(mantissa, ops.constant(2.0**-mant_bits)), ops.constant(1.0))
    rounded = ops.mul(fraction, one)
    zero = ops.constant(0.0)
    return ops.where(ops.less(x, zero), ops.sub(zero, rounded), rounded)


def nearest(ops: Ops[V], x: V, mant_bits: int) -> V:
    """x, at most 2^100, rounded to this many bits of mantissa (1 to 22)."""
    # Veltkamp splitting: the leading part of x, rounded half to even, by float32 products and differences.
    product = ops.mul(x, ops.constant(2.0 ** (FLOAT32_MANTISSA_BITS - mant_bits) + 1))
    return ops.sub(product, ops.sub(product, x))


def _power_of_two_below(ops: Ops[V], magnitude: V) -> V:
    # Rounding to no mantissa at all gives the power of two below or the one above; the latter is too large.
    # Scaling by 2^-64 keeps the inner product from overflowing; floats below 2^-62 are not scaled.
    small = ops.less(magnitude, ops.constant(1.0))
    factor = ops.where(small, ops.constant(1.0), ops.constant(2.0**-64))
    scaled = ops.mul(magnitude, factor)
    near = nearest(ops, scaled, 0)
    # Halved before scaling back: the power above the largest float32 is infinity.
    near = ops.where(ops.less(scaled, near), ops.mul(near, ops.constant(0.5)), near)
    return ops.div(near, factor)


@trimming_mode("minifloat", "mini_floating_point")
class MinifloatMode(TrimmingMode):
    """One minifloat format for the whole net: weights, biases and activations."""

    precision = "MINIFLOAT"
    groups = (SearchGroup("net", ("Minifloat net:",), "minifloat net", frozenset({"CONV", "FC"}), frozenset(Role)),)

    def layer_formats(self, quantization: Message) -> LayerFormats:
        number_format = Minifloat(quantization.mant_bits, quantization.exp_bits)
        return LayerFormats(
            layer_in=number_format,
            layer_out=number_format,
            weights=number_format,
            bias=number_format,
            rounding=rounding_of(quantization),
        )

    def widths(self, offered: Sequence[int], ranges: Sequence[Ranges]) -> list[int]:
        exp_bits = exponent_bits(ranges)
        return [bits for bits in sorted(offered, reverse=True) if bits - 1 - exp_bits > 0]

    def write(
        self,
        quantization: Message,
        widths: Mapping[Role, int],
        ranges: Ranges,
        *,
        everywhere: Sequence[Ranges],
        legacy: bool,
    ) -> None:
        bits = widths[Role.PARAMS]
        exp_bits = exponent_bits(everywhere)
        if bits >= LOSSLESS_BITS and not legacy:
            exp_bits = max(exp_bits, FLOAT32_EXPONENT_BITS)  # DIFFERS(D4)
        elif bits >= UNSATURATED_BITS and not legacy:
            exp_bits = unsaturated_exponent_bits(everywhere)  # DIFFERS(D13)
        quantization.mant_bits = bits - 1 - exp_bits
        quantization.exp_bits = exp_bits


def exponent_bits(ranges: Sequence[Ranges]) -> int:
    """The exponent bits that cover the activations of all layers; at least 4. Parameters are ignored.

    >>> exponent_bits([Ranges(layer_in=1000.0, layer_out=2.0, params=0.5)])
    5
    """
    bits = 4
    for layer in ranges:
        for largest in (layer.layer_in, layer.layer_out):
            exponent = math.log2(largest) - 1 if largest > 0 else 0.0
            if exponent > 0:
                bits = max(bits, math.ceil(math.log2(exponent) + 1))
    return bits


def unsaturated_exponent_bits(ranges: Sequence[Ranges]) -> int:
    """The smallest number of exponent bits, at least 4, at which HEADROOM times no activation range saturates.

    >>> unsaturated_exponent_bits([Ranges(layer_in=341.0, layer_out=2.0, params=0.5)])
    4
    >>> unsaturated_exponent_bits([Ranges(layer_in=342.0, layer_out=2.0, params=0.5)])
    5
    """
    largest = HEADROOM * max((max(layer.layer_in, layer.layer_out) for layer in ranges), default=0.0)
    bits = 4
    while largest >= 2.0 ** (Floats(0, bits).top_exponent + 1):
        bits += 1
    return bits
