"""The header of a quantized or folded prototxt: a comment that names its weights."""

from __future__ import annotations

import os
from pathlib import Path

from ristretto_cli import __version__
from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import has_bias_format, is_unsigned
from ristretto_cli.quantize.config import QuantizeConfig

_WEIGHTS_LINE = "# Weights: "
_OWN_BIASES_LINE = "# Biases have a format of their own, bw_bias and fl_bias, which the original cannot read.\n"
_UNSIGNED_LINE = (
    "# Some activations are unsigned, unsigned_layer_in and unsigned_layer_out, which the original cannot read.\n"
)


def header(config: QuantizeConfig, net: Message) -> str:
    """The version, the trimming mode and the weights' path, relative to the folder of the quantized prototxt.

    net: the quantized net; lines say whether only this tool can read it.
    """
    own_biases = any(has_bias_format(layer.quantization_param) for layer in net.layer)
    unsigned = any(is_unsigned(layer.quantization_param) for layer in net.layer)
    return (
        f"# Trimmed by ristretto {__version__}, {config.trimming_mode}.\n"
        f"{_weights_line(config.weights_written, config.model_quantized)}"
        f"{_OWN_BIASES_LINE if own_biases else ''}"
        f"{_UNSIGNED_LINE if unsigned else ''}"
    )


def folded_header(model: str, weights: str) -> str:
    """The version and the weights' path, for a net whose normalizations were folded. model: the file to be written."""
    return f"# Folded by ristretto {__version__}.\n{_weights_line(weights, model)}"


def _weights_line(weights: str, model: str) -> str:
    return f"{_WEIGHTS_LINE}{os.path.relpath(Path(weights).resolve(), Path(model).resolve().parent)}\n"


def weights_of(model: str) -> str:
    """The path of the weights in a prototxt's header; RistrettoError if there is none."""
    weights = named_weights(model)
    if weights is None:
        raise RistrettoError("no weights file is named in its header", where=model, hint="Use --weights.")
    return weights


def named_weights(model: str) -> str | None:
    """The path of the weights in a prototxt's header; None if there is none, or for a pipe, which is read only once."""
    if Path(model).is_fifo():
        return None
    with open_to_read(model) as stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            if line.startswith(_WEIGHTS_LINE):
                path = line[len(_WEIGHTS_LINE) :].strip()
                return os.path.relpath(Path(model).resolve().parent / path)
            if not line.startswith("#"):
                break
    return None
