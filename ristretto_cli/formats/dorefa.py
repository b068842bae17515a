"""DoReFa-Net (arXiv 1606.06160): weights, inputs and gradients of a few bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.few_bits import SCALE_PER, FewBitMode, ScaledWeights, ScalePer, signed
from ristretto_cli.formats.number_format import (
    LOSSLESS_BITS,
    LayerFormats,
    ModeOption,
    NumberFormat,
    Ranges,
    Role,
    Rounding,
    rounding_of,
    trimming_mode,
)
from ristretto_cli.ops import Ops, V

_MOST_BITS = 16
_BITS = tuple(range(1, _MOST_BITS + 1))


@dataclass(frozen=True)
class UnitInterval(NumberFormat):
    """The multiples of 1 / (2^bits - 1) from 0 to 1; smaller and larger values saturate, NaN becomes 1.

    The gradient passes where the value is from 0 to 1.
    """

    bits: int

    @property
    def largest(self) -> float:
        return 1.0

    @property
    def lowest(self) -> float:
        return 0.0

    def width(self) -> int:
        return self.bits

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        """The nearest multiple, ties to even."""
        steps = ops.constant(float(2**self.bits - 1))
        return ops.div(ops.round(ops.mul(ops.clip(x, 0.0, 1.0), steps)), steps)


@dataclass(frozen=True)
class SignedMean(ScaledWeights):
    """The sign of each weight times the mean magnitude of its layer or filter. The gradient passes straight through."""

    def width(self) -> int:
        return 1

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        return signed(ops, x, ops.mean(ops.abs(x), self.scaled_axes(x.shape)))


@dataclass(frozen=True)
class NormalizedWeights(NumberFormat):
    """tanh of the weights, divided by its largest magnitude in the layer, at 2^bits equidistant levels from -1 to 1.

    The gradient is that of the normalized tanh; it passes straight through the rounding. There is no zero.
    """

    elementwise = False
    bits: int

    @property
    def largest(self) -> float:
        return math.inf  # the weights are normalized first

    def width(self) -> int:
        return self.bits

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        return self._rounded(ops, self._normalized(ops, x))

    def learnable(self, ops: Ops[V], x: V, rounding: Rounding, *, within: tuple[float, float] | None = None) -> V:
        normalized = self._normalized(ops, x)
        return ops.straight_through(normalized, self._rounded(ops, ops.detach(normalized)))

    def _normalized(self, ops: Ops[V], x: V) -> V:
        compressed = ops.tanh(x)
        return ops.div(compressed, _or_one(ops, ops.max(ops.abs(compressed), range(len(x.shape)))))

    def _rounded(self, ops: Ops[V], normalized: V) -> V:
        half, one = ops.constant(0.5), ops.constant(1.0)
        unit = ops.add(ops.mul(normalized, half), half)
        rounded = UnitInterval(self.bits).quantize(ops, unit, Rounding.NEAREST)
        return ops.sub(ops.add(rounded, rounded), one)


@dataclass(frozen=True)
class GradientLevels(NumberFormat):
    """2^bits equidistant levels from -m to m, the largest magnitude of each image, rounded at random.

    Before it is rounded, half a step at most is added or subtracted, so that the mean error is 0.
    """

    elementwise = False
    bits: int

    @property
    def largest(self) -> float:
        return math.inf

    def width(self) -> int:
        return self.bits

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        half = ops.constant(0.5)
        largest = ops.max(ops.abs(x), range(1, len(x.shape)))
        twice = ops.add(largest, largest)
        unit = ops.add(ops.div(x, _or_one(ops, twice)), half)
        noise = ops.div(ops.sub(ops.uniform(x.shape), half), ops.constant(float(2**self.bits - 1)))
        rounded = UnitInterval(self.bits).quantize(ops, ops.add(unit, noise), Rounding.NEAREST)
        return ops.mul(twice, ops.sub(rounded, half))


def _or_one(ops: Ops[V], x: V) -> V:
    """x, or 1 where it is 0, to divide by."""
    return ops.where(ops.equal(x, ops.constant(0.0)), ops.constant(1.0), x)


@trimming_mode("dorefa")
class Dorefa(FewBitMode):
    """For training: weights of k bits, inputs of k bits from 0 to 1, and gradients of k bits; float biases."""

    precision = "DOREFA"
    own_fields = ("scale_per", "bw_gradient")
    options = (
        SCALE_PER,
        ModeOption(
            "gradient_bits",
            "The width of the gradients of layers' outputs, which are rounded stochastically; 32: unchanged.",
            choices=(*map(str, _BITS), str(LOSSLESS_BITS)),
            default=str(LOSSLESS_BITS),
        ),
    )
    default_widths: ClassVar = {"params": 1, "layer": 2}
    weight_bits = _BITS
    input_bits = _BITS
    default_scale = ScalePer.LAYER

    def layer_formats(self, quantization: Message) -> LayerFormats:
        self.check(quantization)
        bits, gradient = quantization.bw_params, quantization.bw_gradient
        if gradient != LOSSLESS_BITS and gradient not in _BITS:
            raise LayerError(f"bw_gradient {gradient} is not possible", hint=f"Use 1 to {_MOST_BITS}, or 32.")
        scale_per = self.scale_of(quantization)
        if scale_per is ScalePer.FILTER and bits != 1:
            raise LayerError(
                "scale_per: FILTER needs bw_params: 1", hint="Other widths have no scale; remove scale_per."
            )
        weights = SignedMean(scale_per) if bits == 1 else NormalizedWeights(bits)
        return LayerFormats(
            layer_in=None if quantization.bw_layer_in == LOSSLESS_BITS else UnitInterval(quantization.bw_layer_in),
            layer_out=None,
            weights=None if bits == LOSSLESS_BITS else weights,
            bias=None,
            rounding=rounding_of(quantization),
            gradient=None if gradient == LOSSLESS_BITS else GradientLevels(gradient),
            trains_activations=True,
        )

    def write(
        self,
        quantization: Message,
        widths: Mapping[Role, int],
        ranges: Ranges,
        *,
        everywhere: Sequence[Ranges],
        legacy: bool,
    ) -> None:
        gradient = int(self.option("gradient_bits"))
        if gradient != LOSSLESS_BITS:
            quantization.bw_gradient = gradient
        super().write(quantization, widths, ranges, everywhere=everywhere, legacy=legacy)
