"""The bit widths of a layer, from its quantization_param."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.number_format import LOSSLESS_BITS, layer_formats
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer


@dataclass(frozen=True)
class Widths:
    """Bits of a quantized layer's inputs, weights, biases and outputs."""

    layer_in: int
    weights: int
    bias: int
    layer_out: int

    def __str__(self) -> str:
        return f"{self.layer_in}/{self.weights}/{self.layer_out}"


def widths_of(layer: Layer) -> Widths | None:
    """The widths of a quantized layer; None for others."""
    return None if layer.is_source or layer.type not in LAYERS else widths_in(layer.message)


def widths_in(message: Message) -> Widths | None:
    """The widths in a LayerParameter of a quantized type; None for other types.

    LayerError for invalid widths.
    """
    if message.type not in LAYERS or not LAYERS.get(message.type).quantized:
        return None
    formats = layer_formats(message.quantization_param)
    number_formats = (formats.layer_in, formats.weights, formats.bias, formats.layer_out)
    return Widths(*(LOSSLESS_BITS if each is None else each.width() for each in number_formats))
