"""Convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.layers.filter_settings import FilterSettings
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V


@layer_type("Convolution")
class Convolution(LayerType):
    """Cross-correlation with trained filters. Each bottom (N, C, *S) gives a top (N, num_output, *S').

    Any number of bottoms of equal shape, each with a top, share the parameters: weights
    (num_output, C / group, *kernel) and bias (num_output).
    """

    bottoms = (1, None)
    tops = (1, None)
    tops_match_bottoms = True
    family = "CONV"
    quantized_type = "ConvolutionRistretto"
    depthwise: ClassVar[bool] = False

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        settings = FilterSettings.of(message.convolution_param, bottoms, depthwise=self.depthwise)
        return settings.params(message.convolution_param, deconvolution=False)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        shapes = [x.shape for x in bottoms]
        settings = FilterSettings.of(layer.message.convolution_param, shapes, depthwise=self.depthwise)
        return [settings.apply(ops, ops.conv, x, params) for x in bottoms]
