"""ConvolutionDepthwise and DepthwiseConvolution, two forks' names for the same layer."""

from __future__ import annotations

from ristretto_cli.layers.convolution import Convolution
from ristretto_cli.layers.layer_type import layer_type


@layer_type("ConvolutionDepthwise", "DepthwiseConvolution")
class ConvolutionDepthwise(Convolution):
    """A Convolution in which each channel has filters of its own.

    One fork has the net say group; the other has no group and as many outputs as channels. So group and
    num_output are the number of channels where they are not given.
    """

    depthwise = True
