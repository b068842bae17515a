"""The header of a quantized or folded prototxt: a comment that names its weights."""

from __future__ import annotations

from ristretto_cli import __version__
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.caffe_io.named_weights import named_weights, weights_line
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.header import format_lines
from ristretto_cli.quantize.config import QuantizeConfig


def header(config: QuantizeConfig, net: Message) -> str:
    """The version, the trimming mode and the weights' path, relative to the folder of the quantized prototxt.

    net: the quantized net; lines say whether only this tool can read it.
    """
    return (
        f"# Trimmed by ristretto {__version__}, {config.trimming_mode}.\n"
        f"{weights_line(config.weights_written, config.model_quantized)}"
        f"{format_lines(net)}"
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
