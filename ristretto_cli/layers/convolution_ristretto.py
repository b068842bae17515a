"""ConvolutionRistretto."""

from __future__ import annotations

from ristretto_cli.layers.convolution import Convolution
from ristretto_cli.layers.layer_type import layer_type


@layer_type("ConvolutionRistretto")
class ConvolutionRistretto(Convolution):
    """A Convolution whose bottoms, parameters and tops are quantized according to quantization_param."""

    quantized = True
