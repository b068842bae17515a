"""Opening of the sources of data layers."""

from __future__ import annotations

from collections.abc import Mapping

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Shape
from ristretto_cli.sources.settings import checked_shape
from ristretto_cli.sources.source import SOURCES, Source


def open_source(message: Message, phase: int, *, seed: int = 0) -> Source:
    """The source of a data layer's LayerParameter in a phase; RistrettoError if it cannot be opened."""
    return SOURCES.get(message.type)(message, phase, seed=seed)


class DataLayers:
    """The layer types that supply data to a net, and their shapes.

    given: other shapes for tops of layers without data of their own, by blob name.
    """

    def __init__(self, given: Mapping[str, Shape] | None = None) -> None:
        self._given = dict(given or {})

    def names(self) -> list[str]:
        """The types, sorted."""
        return SOURCES.names()

    def __contains__(self, type_name: str) -> bool:
        return type_name in SOURCES

    def shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        """One shape per top, from the first record; the files are closed again."""
        opened = open_source(message, phase)
        opened.close()
        given = [name for name in message.top if name in self._given]
        if given and not opened.is_external:
            raise LayerError(
                f"--input_shape {given[0]} has no effect: the layer reads data of its own",
                hint="Omit it: the net takes the size of each image with batch_size 1.",
            )
        shapes = dict(zip(message.top, opened.shapes, strict=True))
        return tuple(
            checked_shape(self._given[name], f'"{name}"') if name in given else shape for name, shape in shapes.items()
        )
