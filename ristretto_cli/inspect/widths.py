"""How many bits a layer's numbers have, by its quantization_param."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import LOSSLESS_BITS, NumberFormat, trims_of
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer
from ristretto_cli.wire.messages import Message


@dataclass(frozen=True)
class Widths:
    """Bits of a trimmed layer's inputs, weights, biases and outputs."""

    layer_in: int
    weights: int
    bias: int
    layer_out: int

    def __str__(self) -> str:
        return f"{self.layer_in}/{self.weights}/{self.layer_out}"


def widths_of(layer: Layer) -> Widths | None:
    """The widths of a layer that is trimmed; None for others."""
    return None if layer.is_source or layer.type not in LAYERS else widths_in(layer.message)


def widths_in(message: Message) -> Widths | None:
    """The widths that a LayerParameter of a type that is trimmed states; None for other types.

    LayerError for widths that no format has.
    """
    if message.type not in LAYERS or not LAYERS.get(message.type).trims:
        return None
    trims = trims_of(message.quantization_param)
    bias = LOSSLESS_BITS if trims.bias is None else bits_of(trims.bias)
    return Widths(bits_of(trims.layer_in), bits_of(trims.weights), bias, bits_of(trims.layer_out))


def bits_of(number_format: NumberFormat) -> int:
    """The bits that a number of a format needs; 32 of a format that is not known here.

    >>> bits_of(PowerOfTwo(exp_min=-8, exp_max=-1)), bits_of(Minifloat(mant_bits=3, exp_bits=4))
    (4, 8)
    """
    match number_format:
        case Fixed(bits=bits):
            return bits
        case Minifloat(mant_bits=mantissa, exp_bits=exponent):
            return 1 + exponent + mantissa
        case PowerOfTwo(exp_min=least, exp_max=most):
            return 1 + max(0, most - least).bit_length()  # the sign, and a number of 0 up for the exponent
        case _:
            return LOSSLESS_BITS
