"""The header of a quantized or folded prototxt: a comment that names its weights."""

from __future__ import annotations

import os
from pathlib import Path

from ristretto_cli import __version__
from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.header import WEIGHTS_LINE, format_lines, weights_line
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


def named_weights(model: str) -> str | None:
    """The path of the weights in a prototxt's header; None if there is none."""
    with open_to_read(model) as stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            if line.startswith(WEIGHTS_LINE):
                path = line[len(WEIGHTS_LINE) :].strip()
                return os.path.relpath(Path(model).resolve().parent / path)
            if not line.startswith("#"):
                break
    return None
