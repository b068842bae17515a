"""Ternary weight networks (arXiv 1605.04711): weights -s, 0 and +s, with a scale s from the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.few_bits import PARAMS_GROUP, SCALE_PER, FewBitMode, ScaledWeights, ScalePer
from ristretto_cli.formats.number_format import LOSSLESS_BITS, LayerFormats, Rounding, rounding_of, trimming_mode
from ristretto_cli.ops import Ops, V

_THRESHOLD = 0.7  # times the mean magnitude


@dataclass(frozen=True)
class TernaryWeights(ScaledWeights):
    """Zero up to the threshold, 0.7 times the mean magnitude; above it the sign times the mean magnitude there.

    The gradient passes straight through.
    """

    def width(self) -> int:
        return 2

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        axes = self.scaled_axes(x.shape)
        zero, one = ops.constant(0.0), ops.constant(1.0)
        magnitude = ops.abs(x)
        threshold = ops.mul(ops.mean(magnitude, axes), ops.constant(_THRESHOLD))
        above = ops.where(ops.less(threshold, magnitude), one, zero)
        count = ops.maximum(ops.sum(above, axes), one)
        scale = ops.div(ops.sum(ops.mul(above, magnitude), axes), count)
        negative = ops.where(ops.less(x, ops.sub(zero, threshold)), ops.sub(zero, scale), zero)
        return ops.where(ops.less(threshold, x), scale, negative)


@trimming_mode("ternary")
class Ternary(FewBitMode):
    """For training: ternary weights with a scale for each layer or filter, float activations and biases."""

    precision = "TERNARY"
    own_fields = ("scale_per",)
    groups = (PARAMS_GROUP,)
    options = (SCALE_PER,)
    default_widths: ClassVar = {"params": 2}
    weight_bits = (2,)
    default_scale = ScalePer.LAYER

    def layer_formats(self, quantization: Message) -> LayerFormats:
        self.check(quantization)
        untouched = quantization.bw_params == LOSSLESS_BITS
        return LayerFormats(
            layer_in=None,
            layer_out=None,
            weights=None if untouched else TernaryWeights(self.scale_of(quantization)),
            bias=None,
            rounding=rounding_of(quantization),
            trains_activations=True,
        )
