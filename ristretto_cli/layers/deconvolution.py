"""Deconvolution."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.layers.filter_settings import FilterSettings
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V


@layer_type("Deconvolution")
class Deconvolution(LayerType):
    """The transpose of Convolution. Each bottom (N, C, *S) gives a top (N, num_output, *S').

    Any number of bottoms of equal shape, each with a top, share the parameters: weights
    (C, num_output / group, *kernel) and bias (num_output).
    """

    bottoms = (1, None)
    tops = (1, None)
    tops_match_bottoms = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        settings = FilterSettings.of(message.convolution_param, bottoms)
        return settings.params(message.convolution_param, deconvolution=True)

    def filter_axis(self, message: Message) -> int | None:
        return 1 if message.convolution_param.group == 1 else None

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        settings = FilterSettings.of(layer.message.convolution_param, [x.shape for x in bottoms])
        return [settings.apply(ops, ops.deconv, x, params) for x in bottoms]
