"""The interface of a data source: a class in a file of this package, registered under its layer's type."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.ops import Array, Shape
from ristretto_cli.registry import Registry

SOURCES: Registry[type[Source]] = Registry("data source", __package__ or "", "ristretto.sources")


class Source(ABC):
    """The batches of one data layer, from its first record on, wrapping around at the end.

    A source is built from the layer's (upgraded) LayerParameter and the phase (TRAIN or TEST of
    caffe_io.messages; crops and mirrors differ). seed is for its random numbers. The constructor checks the
    settings and reads enough of the files to know the shapes; errors are RistrettoErrors, or
    LayerErrors for bad settings, to which the caller adds the layer's name and line.
    """

    shapes: tuple[Shape, ...]  # one per top; a DYNAMIC extent differs from batch to batch
    is_external: ClassVar[bool] = False  # whether the user supplies the blobs; then next() raises

    @abstractmethod
    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None: ...

    @abstractmethod
    def next(self) -> tuple[Array, ...]:
        """The next batch: an array per top, float32, of the source's shapes (see Data on batch_size 1)."""

    @classmethod
    def label_shape(cls, batch: int) -> Shape:
        """The shape of a second top for this number of images, if there are no data."""
        return (batch,)

    def close(self) -> None:
        """Close the files; a closed source is not read again."""


def source(*names: str) -> Any:
    """Class decorator: register a Source for layers of these types."""
    return SOURCES.register(*names)
