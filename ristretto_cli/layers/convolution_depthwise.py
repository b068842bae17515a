"""ConvolutionDepthwise and DepthwiseConvolution, the names of the same layer in two forks."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.layers.convolution import Convolution
from ristretto_cli.layers.filter_settings import FilterSettings
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.ops import Shape


@layer_type("ConvolutionDepthwise", "DepthwiseConvolution")
class ConvolutionDepthwise(Convolution):
    """A depthwise Convolution: each channel has its own filters.

    In one fork the net sets group; in the other there is no group, and num_output is the number of channels. So group
    and num_output default to the number of channels.
    """

    depthwise = True

    def fill_in_defaults(self, message: Message, bottoms: Sequence[Shape]) -> None:
        settings = FilterSettings.of(message.convolution_param, bottoms, depthwise=True)
        message.convolution_param.group = settings.geometry.group
        message.convolution_param.num_output = settings.num_output
