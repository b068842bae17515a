"""Unpacking of the example into a new folder, and the commands that the demo runs there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.demo.databases import write_databases
from ristretto_cli.errors import RistrettoError

_FILES = Path(__file__).parent / "digits"
_ARCHIVE = "digits.npz"


@dataclass(frozen=True)
class Step:
    """A command of the demo. title: what it does, for a heading. arguments: those of `ristretto`."""

    title: str
    arguments: tuple[str, ...]


QUANTIZE = Step(
    "Quantize a small LeNet to as few bits as cost at most 2 percentage points",
    (
        *("quantize", "--model", "train_val.prototxt", "--weights", "digits.caffemodel"),
        *("--trimming_mode", "dynamic_fixed_point", "--bit_widths", "16,8,4", "--iterations", "10"),
    ),
)
_ALWAYS = (
    QUANTIZE,
    Step("Score the quantized net on all 360 test images", ("test", "--iterations", "10")),
    Step("List its layers", ("summary", "--model", "quantized.prototxt")),
    Step(
        "Export it as an ONNX graph",
        ("export", "--format", "onnx", "--model", "quantized.prototxt", "--output", "digits.onnx"),
    ),
)
_WITH_TORCH = (
    Step(
        "Fine-tune the quantized net",
        (
            *("train", "--solver", "solver_finetune.prototxt", "--weights", "digits.caffemodel"),
            *("--trim_activations", "--threads", "1"),
        ),
    ),
    Step(
        "Score the fine-tuned net",
        ("test", "--weights", "digits_finetuned_iter_1000.caffemodel", "--iterations", "10"),
    ),
)


def can_train() -> bool:
    """Whether torch, which training needs, is installed."""
    return find_spec("torch") is not None


def steps(*, train: bool) -> tuple[Step, ...]:
    """The commands, in order. train: fine-tune the net as well."""
    return _ALWAYS + (_WITH_TORCH if train else ())


def unpack(folder: str) -> list[str]:
    """Write the example's files and databases to a new or empty folder; returns a line for each database.

    RistrettoError if the folder has files, or cannot be written.
    """
    root = Path(folder)
    try:
        if root.is_dir() and any(root.iterdir()):
            raise RistrettoError("the folder is not empty", where=folder, hint="Name a new one: ristretto demo DIR")
        root.mkdir(parents=True, exist_ok=True)
        for source in sorted(_FILES.iterdir()):
            write_atomically(root / source.name, source.read_bytes())
    except (OSError, ValueError) as fault:
        where = os.fsdecode(fault.filename) if isinstance(fault, OSError) and fault.filename else folder
        reason = (fault.strerror if isinstance(fault, OSError) else None) or fault
        raise RistrettoError(f"cannot be written: {reason}", where=where) from None
    return list(write_databases(root / _ARCHIVE, root))
