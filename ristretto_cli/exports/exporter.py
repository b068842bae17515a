"""What an export is: a class in a file of its own in this package, registered under its --format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from ristretto_cli.registry import Registry

EXPORTS: Registry[Exporter] = Registry("export format", __package__ or "")


@dataclass(frozen=True)
class ExportRequest:
    """What is to be exported where. model is None where only weights were named."""

    model: str | None
    weights: str
    output: str
    phase: int
    level: int = 0
    stages: tuple[str, ...] = ()
    allow_missing: bool = False


class Exporter(ABC):
    """One file format."""

    @abstractmethod
    def write(self, request: ExportRequest) -> str:
        """Write request.output and return a line on what it holds. RistrettoError for what cannot be exported."""


def exporter(name: str) -> Any:
    """Class decorator: register an Exporter under its format's name."""

    def register(cls: type[Exporter]) -> type[Exporter]:
        EXPORTS.register(name)(cls())
        return cls

    return register
