"""ConvolutionDepthwise and DepthwiseConvolution, two forks' names for the same layer."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.convolution import Convolution
from ristretto_cli.layers.filter_settings import FilterSettings
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.ops import Shape
from ristretto_cli.wire.messages import Message


@layer_type("ConvolutionDepthwise", "DepthwiseConvolution")
class ConvolutionDepthwise(Convolution):
    """A Convolution in which each channel has filters of its own.

    One fork has the net say group; the other has no group and as many outputs as channels. So group and
    num_output are the number of channels where they are not given.
    """

    depthwise = True

    def make_explicit(self, message: Message, bottoms: Sequence[Shape]) -> None:
        settings = FilterSettings.of(message.convolution_param, bottoms, depthwise=True)
        message.convolution_param.group = settings.geometry.group
        message.convolution_param.num_output = settings.num_output
