"""Lines of the header of a prototxt that is written: what only this tool reads."""

from __future__ import annotations

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.number_format import has_bias_format, is_unsigned, needs_training

_OWN_BIASES_LINE = "# Biases have a format of their own, bw_bias and fl_bias, which the original cannot read.\n"
_UNSIGNED_LINE = (
    "# Some activations are unsigned, unsigned_layer_in and unsigned_layer_out, which the original cannot read.\n"
)
_OWN_PRECISION_LINE = "# The precision is for nets that are trained with it, which the original cannot read.\n"


def format_lines(net: Message) -> str:
    """Lines for the formats of a net that the original cannot read; empty if it can."""
    own_biases = any(has_bias_format(layer.quantization_param) for layer in net.layer)
    unsigned = any(is_unsigned(layer.quantization_param) for layer in net.layer)
    own_precision = any(needs_training(layer.quantization_param) for layer in net.layer)
    lines = {_OWN_BIASES_LINE: own_biases, _OWN_PRECISION_LINE: own_precision, _UNSIGNED_LINE: unsigned}
    return "".join(line for line, applies in lines.items() if applies)
