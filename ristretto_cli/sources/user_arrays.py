"""Arrays that the user supplies for an input of a net, batch by batch."""

from __future__ import annotations

import numpy as np

from ristretto_cli.ops import Array, Shape
from ristretto_cli.sources.source import Source


class UserArray(Source):
    """Batches of an array whose first axis is that of images; after the last one the first one follows.

    shape: of the input. An input without axes gets the same value each time.
    """

    def __init__(self, array: Array, shape: Shape) -> None:
        self.shapes = (shape,)
        self._array = array
        self._batch = shape[0] if shape else 0
        self._at = 0

    def next(self) -> tuple[Array, ...]:
        if not self._batch:
            return (self._array,)
        rows = (self._at + np.arange(self._batch)) % len(self._array)
        self._at = (self._at + self._batch) % len(self._array)
        return (self._array[rows],)
