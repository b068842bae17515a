"""What a data source is: a class in a file of its own in this package, registered under its layer's type."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ristretto_cli.ops import Array, Shape
from ristretto_cli.registry import Registry
from ristretto_cli.wire.messages import Message

SOURCES: Registry[type[Source]] = Registry("data source", __package__ or "", "ristretto.sources")


class Source(ABC):
    """The batches of one data layer, from its first record on, wrapping around at the end.

    A source is made from the layer's (upgraded) LayerParameter and the phase (TRAIN or TEST of
    wire.messages; crops and mirrors differ). seed drives whatever is random in it. Making one checks the
    settings and opens the files far enough to know the shapes; RistrettoError tells what is missing, as a
    LayerError where the layer's settings are at fault: whoever knows the layer's name and line adds them.
    """

    shapes: tuple[Shape, ...]  # one per top; an extent may be VARIES, and then differs from batch to batch
    fed: ClassVar[bool] = False  # whether the user brings the blobs, and next() has none

    @abstractmethod
    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None: ...

    @abstractmethod
    def next(self) -> tuple[Array, ...]:
        """The next batch: an array per top, float32, of the source's shapes (see Data on batch_size 1)."""

    @classmethod
    def label_shape(cls, batch: int) -> Shape:
        """The shape of a second top for so many images, where there are no data to tell it."""
        return (batch,)

    def close(self) -> None:
        """Let go of files; a closed source is not read again."""


def source(*names: str) -> Any:
    """Class decorator: register a Source for layers of these types."""
    return SOURCES.register(*names)
