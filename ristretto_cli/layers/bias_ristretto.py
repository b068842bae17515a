"""BiasRistretto."""

from __future__ import annotations

from dataclasses import replace

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.number_format import LayerFormats
from ristretto_cli.layers.bias import Bias
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.trimmed import Trimmed


@layer_type("BiasRistretto")
class BiasRistretto(Trimmed, Bias):
    """A Bias whose parameter is quantized according to quantization_param; bottoms and top are not."""

    def formats(self, message: Message) -> LayerFormats:
        return replace(super().formats(message), layer_in=None, layer_out=None)
