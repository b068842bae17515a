"""The bit widths of a layer, from its quantization_param."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.number_format import LOSSLESS_BITS, NumberFormat, has_bias_format
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer


@dataclass(frozen=True)
class Widths:
    """Bits of a quantized layer's inputs, weights, biases and outputs.

    weight_format: the format of the weights. own_bias: biases have a format of their own. As text: in/weights/out, or
    in/weights+biases/out.
    """

    layer_in: int
    weights: int
    bias: int
    layer_out: int
    own_bias: bool = False
    weight_format: NumberFormat | None = None

    def __str__(self) -> str:
        return f"{self.layer_in}/{self.weights}{f'+{self.bias}' if self.own_bias else ''}/{self.layer_out}"

    @property
    def legend(self) -> str:
        """The meaning of the numbers in the text."""
        return f"bits in/weights{'+biases' if self.own_bias else ''}/out"

    def as_json(self) -> dict[str, int]:
        """The widths for JSON."""
        return {"layer_in": self.layer_in, "weights": self.weights, "bias": self.bias, "layer_out": self.layer_out}


def widths_of(layer: Layer) -> Widths | None:
    """The widths of a quantized layer; None for others."""
    return None if layer.is_source or layer.type not in LAYERS else widths_in(layer.message)


def widths_in(message: Message) -> Widths | None:
    """The widths in a LayerParameter of a quantized type; None for other types.

    LayerError for invalid widths.
    """
    if message.type not in LAYERS or not LAYERS.get(message.type).quantized:
        return None
    formats = LAYERS.get(message.type).formats(message)
    return Widths(
        layer_in=_width(formats.layer_in),
        weights=_width(formats.weights),
        bias=_width(formats.bias),
        layer_out=_width(formats.layer_out),
        own_bias=formats.bias is not None and has_bias_format(message.quantization_param),
        weight_format=formats.weights,
    )


def _width(number_format: NumberFormat | None) -> int:
    return LOSSLESS_BITS if number_format is None else number_format.width()
