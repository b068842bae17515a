"""Binary weights and binary inputs (BWN and XNOR-Net, arXiv 1603.05279)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.few_bits import SCALE_PER, FewBitMode, ScaledWeights, ScalePer, signed
from ristretto_cli.formats.number_format import (
    FLAG,
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
from ristretto_cli.ops import Grid, Ops, V


@dataclass(frozen=True)
class Sign(NumberFormat):
    """-1 and +1; zero becomes +1, NaN -1. The gradient passes where the value is from -1 to 1."""

    @property
    def largest(self) -> float:
        return 1.0

    def width(self) -> int:
        return 1

    def grid(self) -> Grid:
        return Grid(0, -1, 1)

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        return signed(ops, x, ops.constant(1.0))


@dataclass(frozen=True)
class BinaryWeights(ScaledWeights):
    """The sign of each weight times the mean magnitude a of its filter or layer.

    The gradient of a weight w is that of its quantized value times 1/n + a [|w| <= 1], with n weights to a scale.
    centered: the mean over the input channels is subtracted from the weights first. clipped: they are then limited to
    -1 and 1. The gradient passes straight through both.
    """

    centered: bool = False
    clipped: bool = False

    @property
    def needs_filters(self) -> bool:
        return self.centered or super().needs_filters

    def width(self) -> int:
        return 1

    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        x = self._prepared(ops, x)
        return signed(ops, x, self._scale(ops, x))

    def learnable(self, ops: Ops[V], x: V, rounding: Rounding, *, within: tuple[float, float] | None = None) -> V:
        prepared = self._prepared(ops, ops.detach(x))
        scale = self._scale(ops, prepared)
        size = math.prod(x.shape[axis] for axis in self.scaled_axes(x.shape))
        zero = ops.constant(0.0)
        passing = ops.where(ops.less(ops.constant(1.0), ops.abs(prepared)), zero, scale)
        factor = ops.add(passing, ops.constant(1 / max(1, size)))
        return ops.straight_through(ops.mul(x, factor), signed(ops, prepared, scale))

    def _prepared(self, ops: Ops[V], x: V) -> V:
        if self.centered:
            x = ops.sub(x, ops.mean(x, [1 - self.filters_on]))
        return ops.clip(x, -1.0, 1.0) if self.clipped else x

    def _scale(self, ops: Ops[V], x: V) -> V:
        return ops.mean(ops.abs(x), self.scaled_axes(x.shape))


@trimming_mode("xnor")
class Xnor(FewBitMode):
    """For training: binary weights with a scale for each filter or layer, binary or float inputs, float biases."""

    precision = "XNOR"
    own_fields = ("scale_per", "center_params", "clip_params")
    options = (
        SCALE_PER,
        ModeOption(
            "center_params",
            "Subtract the mean over the input channels from the weights first.",
            choices=FLAG,
            default=FLAG[False],
        ),
        ModeOption("clip_params", "Limit the weights to -1 and 1 first.", choices=FLAG, default=FLAG[False]),
    )
    default_widths: ClassVar = {"params": 1, "layer": 1}
    weight_bits = (1,)
    input_bits = (1,)
    default_scale = ScalePer.FILTER

    def layer_formats(self, quantization: Message) -> LayerFormats:
        self.check(quantization)
        weights = BinaryWeights(
            self.scale_of(quantization), centered=quantization.center_params, clipped=quantization.clip_params
        )
        return LayerFormats(
            layer_in=None if quantization.bw_layer_in == LOSSLESS_BITS else Sign(),
            layer_out=None,
            weights=None if quantization.bw_params == LOSSLESS_BITS else weights,
            bias=None,
            rounding=rounding_of(quantization),
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
        for name in ("center_params", "clip_params"):
            if self.option(name) == FLAG[True]:
                setattr(quantization, name, True)
        super().write(quantization, widths, ranges, everywhere=everywhere, legacy=legacy)
