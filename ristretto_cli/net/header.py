"""Lines of the header of a prototxt that is written: the weights that it belongs to, and what only this tool reads."""

from __future__ import annotations

import os
from pathlib import Path

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.number_format import has_bias_format, is_unsigned

WEIGHTS_LINE = "# Weights: "
_OWN_BIASES_LINE = "# Biases have a format of their own, bw_bias and fl_bias, which the original cannot read.\n"
_UNSIGNED_LINE = (
    "# Some activations are unsigned, unsigned_layer_in and unsigned_layer_out, which the original cannot read.\n"
)


def weights_line(weights: str, model: str) -> str:
    """The line with the weights' path, relative to the folder of the model that is written."""
    return f"{WEIGHTS_LINE}{os.path.relpath(Path(weights).resolve(), Path(model).resolve().parent)}\n"


def format_lines(net: Message) -> str:
    """Lines for the formats of a net that the original cannot read; empty if it can."""
    own_biases = any(has_bias_format(layer.quantization_param) for layer in net.layer)
    unsigned = any(is_unsigned(layer.quantization_param) for layer in net.layer)
    return f"{_OWN_BIASES_LINE if own_biases else ''}{_UNSIGNED_LINE if unsigned else ''}"
