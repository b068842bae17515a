"""DeconvolutionRistretto."""

from __future__ import annotations

from dataclasses import replace

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.fork_fields import has_top_fields
from ristretto_cli.formats.number_format import LayerFormats
from ristretto_cli.layers.deconvolution import Deconvolution
from ristretto_cli.layers.layer_type import layer_type


@layer_type("DeconvolutionRistretto")
class DeconvolutionRistretto(Deconvolution):
    """A Deconvolution whose bottoms, parameters and tops are quantized according to quantization_param."""

    quantized = True

    def formats(self, message: Message) -> LayerFormats:
        formats = super().formats(message)
        if has_top_fields(message.quantization_param):  # the fork with these fields trims no parameters here
            return replace(formats, weights=None, bias=None)
        return formats
