"""Opening of the sources of data layers."""

from __future__ import annotations

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.ops import Shape
from ristretto_cli.sources.source import SOURCES, Source


def open_source(message: Message, phase: int, *, seed: int = 0) -> Source:
    """The source of a data layer's LayerParameter in a phase; RistrettoError if it cannot be opened."""
    return SOURCES.get(message.type)(message, phase, seed=seed)


class DataLayers:
    """The layer types that supply data to a net, and their shapes."""

    def names(self) -> list[str]:
        """The types, sorted."""
        return SOURCES.names()

    def __contains__(self, type_name: str) -> bool:
        return type_name in SOURCES

    def shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        """One shape per top, from the first record; the files are closed again."""
        opened = open_source(message, phase)
        try:
            return opened.shapes
        finally:
            opened.close()
