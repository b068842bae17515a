"""The line in the header of a quantized or folded prototxt that names its weights."""

from __future__ import annotations

import os
from pathlib import Path

from ristretto_cli.caffe_io.files import open_to_read, write_atomically
from ristretto_cli.errors import RistrettoError

_START = "# Weights: "


def weights_line(weights: str, model: str) -> str:
    """The line, with the weights' path relative to the folder of the model."""
    return f"{_START}{os.path.relpath(Path(weights).resolve(), Path(model).resolve().parent)}\n"


def named_weights(model: str) -> str | None:
    """The path of the weights in a prototxt's header; None if there is none, or for a pipe, which is read only once."""
    if Path(model).is_fifo():
        return None
    with open_to_read(model) as stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            if line.startswith(_START):
                path = line[len(_START) :].strip()
                return os.path.relpath(Path(model).resolve().parent / path)
            if not line.startswith("#"):
                break
    return None


def rename_weights(model: str, weights: str) -> None:
    """Name other weights in a prototxt's header, which names some; the rest of the file stays as it is."""
    with open_to_read(model) as stream:
        lines = stream.read().splitlines(keepends=True)
    start = _START.encode()
    at = next((i for i, line in enumerate(lines) if line.startswith(start)), None)
    if at is None:
        raise RistrettoError("no weights file is named in its header", where=model)
    lines[at] = weights_line(weights, model).encode("utf-8", "surrogateescape")
    write_atomically(model, b"".join(lines))
