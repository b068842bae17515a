"""The header of a quantized or folded prototxt: a comment that names its weights."""

from __future__ import annotations

from ristretto_cli import __version__
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.caffe_io.named_weights import named_weights, weights_line
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import has_bias_format, is_unsigned, needs_training
from ristretto_cli.quantize.config import QuantizeConfig

_OWN_BIASES_LINE = "# Biases have a format of their own, bw_bias and fl_bias, which the original cannot read.\n"
_UNSIGNED_LINE = (
    "# Some activations are unsigned, unsigned_layer_in and unsigned_layer_out, which the original cannot read.\n"
)
_OWN_PRECISION_LINE = "# The precision is for nets that are trained with it, which the original cannot read.\n"


def header(config: QuantizeConfig, net: Message) -> str:
    """The version, the trimming mode and the weights' path, relative to the folder of the quantized prototxt.

    net: the quantized net; lines say whether only this tool can read it.
    """
    own_biases = any(has_bias_format(layer.quantization_param) for layer in net.layer)
    own_precision = any(needs_training(layer.quantization_param) for layer in net.layer)
    unsigned = any(is_unsigned(layer.quantization_param) for layer in net.layer)
    return (
        f"# Trimmed by ristretto {__version__}, {config.trimming_mode}.\n"
        f"{weights_line(config.weights_written, config.model_quantized)}"
        f"{_OWN_BIASES_LINE if own_biases else ''}"
        f"{_OWN_PRECISION_LINE if own_precision else ''}"
        f"{_UNSIGNED_LINE if unsigned else ''}"
    )


def folded_header(model: str, weights: str) -> str:
    """The version and the weights' path, for a net whose normalizations were folded. model: the file to be written."""
    return f"# Folded by ristretto {__version__}.\n{weights_line(weights, model)}"


def weights_of(model: str) -> str:
    """The path of the weights in a prototxt's header; RistrettoError if there is none."""
    weights = named_weights(model)
    if weights is None:
        raise RistrettoError("no weights file is named in its header", where=model, hint="Use --weights.")
    return weights
