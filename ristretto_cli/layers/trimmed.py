"""What trimmed types of forks have in common."""

from __future__ import annotations

from dataclasses import replace

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.number_format import LayerFormats
from ristretto_cli.layers.layer_type import LayerType
from ristretto_cli.net.ir import Layer


class Trimmed(LayerType):
    """A layer whose values are quantized, so that it has none of the properties that exact values give."""

    quantized = True
    needs_one_format = False
    family = ""
    quantized_type = ""

    def keeps_elements(self, layer: Layer) -> bool:
        return False

    def keeps_factors(self, layer: Layer) -> bool:
        return False

    def keeps_format(self, layer: Layer) -> bool:
        return False


class TrimmedTops(Trimmed):
    """A layer whose tops are quantized; its bottoms only where trim_layer_in or is_quantized is set."""

    def formats(self, message: Message) -> LayerFormats:
        formats = super().formats(message)
        quantization = message.quantization_param
        if quantization.HasField("trim_layer_in") or quantization.is_quantized:
            return formats
        return replace(formats, layer_in=None)
