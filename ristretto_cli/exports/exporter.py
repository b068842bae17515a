"""The interface of an exporter: a class in a file of this package, registered under its --format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ristretto_cli.errors import RistrettoError
from ristretto_cli.integers.compiler import DEFAULT_AFFINE_BITS
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.ops import Shape
from ristretto_cli.registry import Registry
from ristretto_cli.scoring.user_data import UserData

EXPORTS: Registry[Exporter] = Registry("export format", __package__ or "", "ristretto.exports")


@dataclass(frozen=True)
class ExportRequest:
    """The inputs, the output and the options of an export. model and weights are None if not given; see `needed`.

    rounding, affine_bits: of integer programs. vectors: the number of images whose integers to write too. check: the
    number of images to run what was written on. data: the user's, for inputs of the net. batch: the number of images
    at a time, 0 for any. outputs: the blobs to give, by name. input_shapes: of inputs, by name, instead of the net's.
    pack: weights narrower than a byte share bytes. per_line: the weights on a line of a memory file.
    """

    model: str | None
    weights: str | None
    output: str
    phase: int
    level: int = 0
    stages: tuple[str, ...] = ()
    allow_missing: bool = False
    rounding: ShiftRounding = ShiftRounding.HALF_EVEN
    affine_bits: int = DEFAULT_AFFINE_BITS
    vectors: int = 0
    check: int = 0
    data: UserData | None = None
    batch: int | None = None
    outputs: tuple[str, ...] = ()
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    pack: bool = False
    per_line: int = 1


class Exporter(ABC):
    """One file format.

    takes: the flags of `export` that have an effect on it, besides those of all formats (--model, --weights, --output,
    --level, --stage, --allow_missing_weights). writes_folder: whether the output is a folder.
    """

    takes: ClassVar[frozenset[str]] = frozenset()
    writes_folder: ClassVar[bool] = False

    @abstractmethod
    def write(self, request: ExportRequest) -> str:
        """Write request.output and return lines about its contents. RistrettoError if the net cannot be exported."""


def needed(path: str | None, flag: str) -> str:
    """The path, or a RistrettoError that names the missing flag."""
    if path is None:
        raise RistrettoError(f"this format needs {flag}")
    return path


def exporter(name: str) -> Any:
    """Class decorator: register an Exporter under its format's name."""

    def register(cls: type[Exporter]) -> type[Exporter]:
        EXPORTS.register(name)(cls())
        return cls

    return register
