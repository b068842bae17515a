"""DeconvolutionRistretto."""

from __future__ import annotations

from ristretto_cli.layers.deconvolution import Deconvolution
from ristretto_cli.layers.layer_type import layer_type


@layer_type("DeconvolutionRistretto")
class DeconvolutionRistretto(Deconvolution):
    """A Deconvolution whose bottoms, parameters and tops are quantized according to quantization_param."""

    quantized = True
