"""Dynamic fixed point: a bit width and a fractional length for each layer's input, output and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import ClassVar

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.activations import FlLayer, integer_bits_of_min_error
from ristretto_cli.formats.number_format import (
    BIAS_LENGTHS,
    BIAS_WIDTHS,
    FLAG,
    HEADROOM,
    LOSSLESS_BITS,
    UNSATURATED_BITS,
    LayerFormats,
    ModeOption,
    NumberFormat,
    Ranges,
    Role,
    Rounding,
    Sample,
    SearchGroup,
    TrimmingMode,
    rounding_of,
    trimming_mode,
)
from ristretto_cli.ops import AnyArray, Array, Grid, Ops, V

# Beyond this, every float32 is either far above or far below one step of the grid.
_EXTREME_FRAC_BITS = 300
_ZERO_RANGE_INTEGER_LENGTH = -(2**31)  # result of casting log2(0) to int in C++
_HEADROOM_BITS = 4
_MAX_FEWER = 16  # integer bits
_SAMPLE_SIZE = 2**20  # weights; larger arrays are sampled
_ACTIVATIONS = frozenset({Role.LAYER_IN, Role.LAYER_OUT})
_PARAMS = frozenset({Role.PARAMS})


@dataclass(frozen=True)
class Fixed(NumberFormat):
    """Integers of `bits` bits (two's complement, or unsigned) times 2^-frac_bits; frac_bits may be negative or above
    bits.

    >>> Fixed(bits=8, frac_bits=4).largest, Fixed(bits=8, frac_bits=4, signed=False).largest
    (7.9375, 15.9375)
    """

    bits: int
    frac_bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        most = 128 if self.signed else 127  # so that float32 has the largest number
        if not 1 <= self.bits <= most:
            what = f"a width of {self.bits} bits is out of range{'' if self.signed else ' without a sign'}"
            raise LayerError(what, hint=f"Use 1 to {most}.")

    @property
    def largest(self) -> float:
        """The largest number of the format."""
        return replace(self.grid(), low=0).largest

    @property
    def lowest(self) -> float:
        return -self.largest if self.signed else 0.0

    def width(self) -> int:
        return self.bits

    def grid(self) -> Grid:
        if not self.signed:
            return Grid(self.frac_bits, 0, 2**self.bits - 1)
        return Grid(self.frac_bits, -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        """Round x to multiples of 2^-frac_bits, saturated at both ends; NaN becomes the largest number."""
        if rounding is Rounding.NEAREST:
            return ops.quantize_fixed(x, self.grid())
        return stepwise(ops, x, self.grid(), partial(rounding.apply, ops))


def stepwise(ops: Ops[V], x: V, grid: Grid, to_integers: Callable[[V], V]) -> V:
    """quantize_fixed in terms of other primitives, for backends without a better one; to_integers rounds."""
    frac_bits = max(-_EXTREME_FRAC_BITS, min(_EXTREME_FRAC_BITS, grid.frac_bits))
    integers = to_integers(_times_power_of_two(ops, x, frac_bits))
    return _times_power_of_two(ops, ops.clip(integers, float(grid.low), float(grid.high)), -frac_bits)


def _times_power_of_two(ops: Ops[V], x: V, exponent: int) -> V:
    # In float32, 2^127 is the largest factor and 2^-126 the smallest exact one.
    while exponent:
        step = max(-126, min(126, exponent))
        x = ops.mul(x, ops.constant(2.0**step))
        exponent -= step
    return x


def integer_length(largest: float, role: Role) -> int:
    """The integer bits, including the sign, for values up to `largest`.

    Parameters keep their full range. Activations have one bit less, so that the top half of their range
    saturates, as in the original: with few bits, a bit of precision is worth more there. A range of
    zero gives the original's -2^31.

    >>> integer_length(3.0, Role.PARAMS), integer_length(3.0, Role.LAYER_IN)
    (3, 2)
    """
    if largest == 0:
        return _ZERO_RANGE_INTEGER_LENGTH
    exponent = math.log2(largest)
    return math.ceil(exponent) if role in _ACTIVATIONS else math.ceil(exponent + 1)


def unsaturated_integer_length(bits: int, largest: float, headroom: float = HEADROOM) -> int:
    """The smallest number of integer bits, including the sign, at which headroom * `largest` does not saturate.

    >>> unsaturated_integer_length(16, 1.0), unsaturated_integer_length(16, 4 / 3)
    (2, 3)
    """
    # Two's complement has no positive 2^(bits-1): the grid ends half a step below the next power of two.
    fraction, exponent = math.frexp(headroom * largest)
    return exponent + (1 if fraction < 1 - 2.0**-bits else 2)


def _fractional_length(bits: int, integer_bits: int) -> int:
    # int32 arithmetic wraps around in the original, which matters only for a range of zero.
    return (bits - integer_bits + 2**31) % 2**32 - 2**31


class FlParams(Enum):
    """The rule that chooses the fractional length of weights; the values are those of --fl_params."""

    MAX = "max"  # the largest weight is representable
    MSE = "mse"  # minimal squared error


@trimming_mode("dynamic_fixed_point", "fixed_point")
class DynamicFixedPoint(TrimmingMode):
    """Convolution weights, inner product weights, activations and optionally biases, each with its own width."""

    precision = "DYNAMIC_FIXED_POINT"
    has_bias_format = True
    per_layer = True
    has_unsigned = True
    combined_title = "Dynamic fixed point net:"
    groups: ClassVar[tuple[SearchGroup, ...]] = (
        SearchGroup(
            "conv_params", ("Dynamic fixed point CONV", "weights: "), "CONV weights", frozenset({"CONV"}), _PARAMS
        ),
        SearchGroup("fc_params", ("Dynamic fixed point FC", "weights: "), "FC weights", frozenset({"FC"}), _PARAMS),
        SearchGroup(
            "layer",
            ("Dynamic fixed point layer", "activations:"),
            "layer activations",
            frozenset({"CONV", "FC"}),
            _ACTIVATIONS,
        ),
    )
    optional_groups = (
        SearchGroup(
            "bias", ("Dynamic fixed point", "biases:"), "biases", frozenset({"CONV", "FC"}), frozenset({Role.BIAS})
        ),
    )
    options: ClassVar[tuple[ModeOption, ...]] = (
        ModeOption(
            "fl_params",
            "How to choose the fractional length of weights: max fits the largest weight, mse minimizes the squared "
            "error.",
            choices=tuple(rule.value for rule in FlParams),
            default=FlParams.MAX.value,
            in_legacy=False,
        ),
        ModeOption(
            "fl_layer",
            "How to choose the fractional length of activations: original saturates the top half of their range, range "
            "fits all of it, mse minimizes the squared error, auto uses mse's where that is clearly better than "
            "original's. --legacy implies original.",
            choices=tuple(rule.value for rule in FlLayer),
            default=FlLayer.AUTO.value,
            in_legacy=False,
            legacy_default=FlLayer.ORIGINAL.value,
        ),
        ModeOption(
            "unsigned",
            "Give activations that are never negative an unsigned format, which has a bit more.",
            choices=FLAG,
            default=FLAG[False],
            in_legacy=False,
        ),
        ModeOption(
            "same_formats",
            "Give an activation one format for all layers that write or read it, also through ReLU, Pooling, Dropout "
            "and the like, and the bottoms of a Concat or Eltwise one format.",
            choices=FLAG,
            default=FLAG[False],
            in_legacy=False,
        ),
    )

    def layer_formats(self, quantization: Message) -> LayerFormats:
        weights = Fixed(quantization.bw_params, quantization.fl_params)
        return LayerFormats(
            layer_in=_activations(quantization, Role.LAYER_IN),
            layer_out=_activations(quantization, Role.LAYER_OUT),
            weights=weights,
            bias=_bias_format(quantization) or weights,
            rounding=rounding_of(quantization),
        )

    def widths(self, offered: Sequence[int], ranges: Sequence[Ranges]) -> list[int]:
        return sorted(offered, reverse=True)

    def write(
        self,
        quantization: Message,
        widths: Mapping[Role, int],
        ranges: Ranges,
        *,
        everywhere: Sequence[Ranges],
        legacy: bool,
    ) -> None:
        min_error = FlParams(self.option("fl_params")) is FlParams.MSE
        fl_layer = FlLayer(self.option("fl_layer"))
        write_fixed(
            quantization,
            widths,
            ranges,
            legacy=legacy,
            fl_layer=fl_layer,
            min_error=min_error,
            unsigned=self.option("unsigned") == FLAG[True],
        )

    def needs_samples(self) -> bool:
        return self._has("fl_layer") and FlLayer(self.option("fl_layer")) in (FlLayer.MSE, FlLayer.AUTO, FlLayer.KL)

    def needs_same_formats(self) -> bool:
        return self._has("same_formats") and self.option("same_formats") == FLAG[True]

    def _has(self, name: str) -> bool:
        """Whether the mode has this option; modes that inherit from it may have others."""
        return any(option.name == name for option in self.options)

    def integer_lengths(self, ranges: Ranges) -> Mapping[Role, int]:
        return {role: integer_length(ranges.of(role), role) for role in Role if role is not Role.BIAS}


def _activations(quantization: Message, role: Role) -> Fixed:
    bits, frac_bits = (getattr(quantization, f"{field}_{role.value}") for field in ("bw", "fl"))
    return Fixed(bits, frac_bits, signed=not getattr(quantization, f"unsigned_{role.value}"))


def _bias_format(quantization: Message) -> Fixed | None:
    """The format that biases have of their own; None if they share the weights'."""
    bits, length = (_given(quantization, names) for names in (BIAS_WIDTHS, BIAS_LENGTHS))
    if bits is None and length is None:
        return None
    if bits is None or length is None:
        lone, other = (length, BIAS_WIDTHS[0]) if bits is None else (bits, BIAS_LENGTHS[0])
        raise LayerError(f"{lone} without {other}", hint="The format of biases needs both: give both, or neither.")
    return Fixed(getattr(quantization, bits), getattr(quantization, length))


def _given(quantization: Message, names: Sequence[str]) -> str | None:
    """The one of several names of a field that is given; LayerError if more than one is."""
    given = [name for name in names if quantization.HasField(name)]
    if len(given) > 1:
        raise LayerError(f"{' and '.join(given)} are names of the same field", hint="Give one of them.")
    return given[0] if given else None


def write_fixed(
    quantization: Message,
    widths: Mapping[Role, int],
    ranges: Ranges,
    *,
    legacy: bool,
    fl_layer: FlLayer,
    min_error: bool = False,
    unsigned: bool = False,
) -> None:
    """Set bw_* and fl_* of each role that has a width in bits; those of biases only if the layer has some.

    min_error: weights get the fractional length with minimal squared error, if ranges have the weights. fl_layer: how
    that of activations is chosen; without samples, AUTO and MSE do as the original does. unsigned:
    activations that are never negative get an unsigned format.
    """
    in_params = replace(ranges, biases=()) if Role.BIAS in widths else ranges  # what the weights' format is for
    for role, bits in widths.items():
        if role is Role.BIAS and not ranges.biases:
            continue
        largest = ranges.of(role)
        if legacy:
            integer_bits = integer_length(largest, role)
        elif bits >= LOSSLESS_BITS:
            # DIFFERS(D4): headroom beyond the measured range, with steps still finer than float32's.
            integer_bits = integer_length(largest or 1.0, Role.PARAMS)
            for_biases = _bits_for_biases(bits, integer_bits, in_params) if role is Role.PARAMS else 0
            integer_bits += max(_HEADROOM_BITS, for_biases)
        else:
            integer_bits = integer_length(largest or 1.0, role)  # DIFFERS(D6)
            if role in _ACTIVATIONS:
                signed = not unsigned or role not in ranges.never_negative
                frac_bits = _fractional_length_of_activations(bits, signed, largest, ranges.samples.get(role), fl_layer)
                integer_bits = bits - frac_bits
                if not signed:
                    setattr(quantization, f"unsigned_{role.value}", True)
            if role is Role.PARAMS:
                integer_bits += _bits_for_biases(bits, integer_bits, in_params)  # DIFFERS(D5)
                if min_error and ranges.weights is not None:
                    integer_bits = _integer_bits_of_min_error(bits, integer_bits, in_params, ranges.weights)
        setattr(quantization, f"bw_{role.value}", bits)
        setattr(quantization, f"fl_{role.value}", _fractional_length(bits, integer_bits))


def _fractional_length_of_activations(
    bits: int, signed: bool, largest: float, sample: Sample | None, fl_layer: FlLayer
) -> int:
    """The fractional length of activations, which the rule chooses."""
    width = bits if signed else bits + 1  # of the signed format whose numbers from 0 up are those of the format
    original = integer_length(largest or 1.0, Role.LAYER_OUT)
    if fl_layer is FlLayer.ORIGINAL:
        return width - original
    if bits >= UNSATURATED_BITS:
        return width - unsaturated_integer_length(width, largest or 1.0)  # DIFFERS(D13)
    whole = unsaturated_integer_length(width, largest or 1.0, headroom=1.0)
    if fl_layer is FlLayer.RANGE:
        return width - whole
    if sample is not None and not signed:
        sample = sample.above_zero()
    if sample is None or not sample.values.size:
        return width - original
    # DIFFERS(D14)
    return width - integer_bits_of_min_error(width, sample, whole=whole, original=original, rule=fl_layer)


def _bits_for_biases(bits: int, integer_bits: int, ranges: Ranges) -> int:
    """The number of extra integer bits for weights at which the layer's output is most accurate.

    Biases share the weights' format unless they have their own. Each extra bit saturates fewer of them and doubles the
    weights' step; an output's expected squared error is the sum of both.
    """
    largest_bias = max(map(abs, ranges.biases), default=0.0)
    max_extra = max(0, integer_length(largest_bias, Role.PARAMS) - integer_bits) if largest_bias else 0

    def squared_error(extra: int) -> float:
        number_format = Fixed(bits, bits - integer_bits - extra)
        beyond = [max(0.0, abs(bias) - number_format.largest) for bias in ranges.biases]
        saturation = sum(excess * excess for excess in beyond) / max(1, len(beyond))
        step = math.ldexp(1.0, -number_format.frac_bits)
        return saturation + step * step / 12 * (ranges.input_energy + 1)

    return min(range(max_extra + 1), key=squared_error)


def _integer_bits_of_min_error(bits: int, max_bits: int, ranges: Ranges, weights: Array) -> int:
    """The integer bits, up to `max_bits`, with the minimal expected squared error of an output, from the weights.

    With few bits it is better to saturate some weights than to round most of them to 0.
    """
    stride = max(1, -(-weights.size // _SAMPLE_SIZE))
    while math.gcd(stride, weights.size) > 1:  # otherwise it would skip some rows or kernel positions
        stride += 1
    sample = weights.ravel()[::stride].astype(np.float64)
    biases = np.array(ranges.biases)

    def squared_error(integer_bits: int) -> float:
        grid = Fixed(bits, bits - integer_bits).grid()
        of_weights = _mean_squared_error(sample, grid) * (ranges.input_energy or 1.0)
        return of_weights + _mean_squared_error(biases, grid)

    return min(range(max_bits, max_bits - _MAX_FEWER, -1), key=squared_error)


def _mean_squared_error(values: AnyArray, grid: Grid) -> float:
    integers = np.clip(np.rint(np.ldexp(values, grid.frac_bits)), grid.low, grid.high)
    return float(np.square(np.ldexp(integers, -grid.frac_bits) - values).sum()) / max(1, values.size)
