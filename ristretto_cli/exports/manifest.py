"""The manifest of an export: what it was made of, and the formats of what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ristretto_cli import __version__
from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.integers.program import Place, Product, Program

_BLOCK = 2**20


def manifest(program: Program, *, export_format: str, sources: Mapping[str, str], affine_bits: int) -> dict[str, Any]:
    """The manifest of a program's export. sources: the paths of the model and the weights, by these names."""
    return {
        "ristretto": __version__,
        "format": export_format,
        "net": program.name,
        **{name: {"file": Path(path).name, "sha256": sha256_of(path)} for name, path in sources.items()},
        "rounding": program.rounding.value,
        "affine_bits": affine_bits,
        "inputs": [{"blob": each.blob, **place_as_json(each.place)} for each in program.inputs],
        "outputs": {blob: place_as_json(place) for blob, place in program.outputs.items()},
        "argmax": "the first of equal scores",
        "layers": [_product(step) for step in program.steps if isinstance(step, Product)],
        "host": [{"layer": each.name, "type": each.type, "reason": each.reason} for each in program.host],
    }


def place_as_json(place: Place) -> dict[str, Any]:
    """A place's format: n stands for n * 2^-frac_bits / divisor."""
    return {
        "place": place.name,
        "shape": list(place.shape),
        "bits": place.bits,
        "signed": place.signed,
        "frac_bits": place.frac_bits,
        "divisor": place.divisor,
        "low": place.low,
        "high": place.high,
    }


def _product(step: Product) -> dict[str, Any]:
    requantization = step.requantization
    return {
        "layer": step.layer,
        "step": type(step).__name__,
        "weights": {
            "shape": list(step.weights.shape),
            "bits": step.weights_bits,
            "frac_bits": step.weights_frac_bits,
        },
        "accumulator": {"bits": step.accumulator_bits, "low": step.low, "high": step.high, "frac_bits": step.frac_bits},
        "left_shift": step.up,
        "right_shift": None if requantization is None else requantization.shift,
    }


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with open_to_read(path) as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
