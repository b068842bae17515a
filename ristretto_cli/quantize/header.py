"""The header of a quantized prototxt: a comment that names its weights."""

from __future__ import annotations

import os
from pathlib import Path

from ristretto_cli import __version__
from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.errors import RistrettoError
from ristretto_cli.quantize.config import QuantizeConfig

_WEIGHTS_LINE = "# Weights: "


def header(config: QuantizeConfig) -> str:
    """The version, the trimming mode and the weights' path, relative to the folder of the quantized prototxt."""
    folder = Path(config.model_quantized).resolve().parent
    return (
        f"# Trimmed by ristretto {__version__}, {config.trimming_mode}.\n"
        f"{_WEIGHTS_LINE}{os.path.relpath(Path(config.weights).resolve(), folder)}\n"
    )


def weights_of(model: str) -> str:
    """The path of the weights in a prototxt's header; RistrettoError if there is none."""
    with open_to_read(model) as stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            if line.startswith(_WEIGHTS_LINE):
                path = line[len(_WEIGHTS_LINE) :].strip()
                return os.path.relpath(Path(model).resolve().parent / path)
            if not line.startswith("#"):
                break
    raise RistrettoError("no weights file is named in its header", where=model, hint="Use --weights.")
