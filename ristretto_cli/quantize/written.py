"""The net that a search writes: its text, under a header that names the weights it is for."""

from __future__ import annotations

import os
from pathlib import Path

from ristretto_cli import __version__
from ristretto_cli.errors import RistrettoError
from ristretto_cli.quantize.job import Job, Outcome
from ristretto_cli.wire.files import open_to_read
from ristretto_cli.wire.printer import to_text

WEIGHTS_LINE = "# Weights: "


def quantized_text(job: Job, outcome: Outcome) -> str:
    """The prototxt of the outcome, under a header that tells how it was made and which weights it is for."""
    folder = Path(job.model_quantized).resolve().parent
    return (
        f"# Trimmed by ristretto {__version__}, {job.trimming_mode}.\n"
        f"{WEIGHTS_LINE}{os.path.relpath(Path(job.weights).resolve(), folder)}\n"
        f"{to_text(outcome.net_file.message)}"
    )


def weights_of(model: str) -> str:
    """The weights that a written net's header names; RistrettoError where it names none."""
    with open_to_read(model) as stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            if line.startswith(WEIGHTS_LINE):
                path = line[len(WEIGHTS_LINE) :].strip()
                return os.path.relpath(Path(model).resolve().parent / path)
            if not line.startswith("#"):
                break
    raise RistrettoError("its header names no weights", where=model, remedy="Give --weights.")
