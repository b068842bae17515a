"""The interface of an exporter: a class in a file of this package, registered under its --format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ristretto_cli.errors import RistrettoError
from ristretto_cli.registry import Registry

EXPORTS: Registry[Exporter] = Registry("export format", __package__ or "", "ristretto.exports")


@dataclass(frozen=True)
class ExportRequest:
    """The inputs, the output and the options of an export. model and weights are None if not given; see `needed`."""

    model: str | None
    weights: str | None
    output: str
    phase: int
    level: int = 0
    stages: tuple[str, ...] = ()
    allow_missing: bool = False


class Exporter(ABC):
    """One file format. takes_phase: whether it can export a phase other than TEST."""

    takes_phase: ClassVar[bool] = False

    @abstractmethod
    def write(self, request: ExportRequest) -> str:
        """Write request.output and return a line about its contents. RistrettoError if the net cannot be exported."""


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
