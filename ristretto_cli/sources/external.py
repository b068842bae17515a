"""Sources whose blobs the user supplies."""

from __future__ import annotations

from typing import ClassVar

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import Array
from ristretto_cli.sources.source import Source


class ExternalSource(Source):
    """A source with shapes but no data."""

    is_external: ClassVar[bool] = True

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        self._type = message.type
        self._name = message.name
        self._tops = tuple(message.top)

    def next(self) -> tuple[Array, ...]:
        tops = ", ".join(self._tops)
        raise RistrettoError(
            f'layer "{self._name}": {self._type} layers have no data of their own',
            hint=f"Set its blobs ({tops}) with --input x.npz.",
        )
