"""Keeping arrays for later: in memory up to a budget, and beyond it in a file that nobody sees."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeAlias

import numpy as np

from ristretto_cli.ops import AnyArray, Shape

log = logging.getLogger("ristretto")

_ALIGNMENT = 64

Kept: TypeAlias = Callable[[], dict[str, AnyArray]]  # gives back what was put on the shelf, as views


class Shelf:
    """Where arrays are kept until the process ends: in memory, and what exceeds memory_bytes in a temporary file.

    The file has no name, so that it is gone when the process ends, however that comes. It takes at most half of what
    is free on its disk; where that is not enough, or writing fails, the shelf is full, which is told once.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._left = memory_bytes
        self._file: IO[bytes] | None = None
        self._end = 0
        self.full = False

    def put(self, arrays: Mapping[str, AnyArray]) -> Kept | None:
        """Keep these arrays, which are not to be changed from now on; None where the shelf is full."""
        size = sum(array.nbytes for array in arrays.values())
        if self.full:
            return None
        if size <= self._left:
            self._left -= size
            held = dict(arrays)
            return lambda: dict(held)
        try:
            return self._write(arrays, size)
        except OSError as error:
            self.full = True
            # Where all folders for temporary files are full, there is none.
            folder = tempfile.tempdir or "The folder for temporary files"
            log.warning("%s has no room for data (%s): they are read anew for each net.", folder, error.strerror)
            return None

    def _write(self, arrays: Mapping[str, AnyArray], size: int) -> Kept:
        if shutil.disk_usage(tempfile.gettempdir()).free < self._end + 2 * size:
            raise OSError(0, "half of what is free is used")
        if self._file is None:
            # Unbuffered: what a buffer could not write, it would try to write again when the file is closed.
            self._file = tempfile.TemporaryFile(prefix="ristretto-", buffering=0)  # noqa: SIM115  # see finalize
            weakref.finalize(self, self._file.close)
        file = self._file
        places = {}
        for name, array in arrays.items():
            self._end += -self._end % _ALIGNMENT
            places[name] = _Place(self._end, array.shape, array.dtype)
            file.seek(self._end)
            _write_all(file, np.ascontiguousarray(array).data if array.size else b"")
            self._end += array.nbytes

        return partial(self._read, places)  # holds the shelf, so that the file stays open as long as it is needed

    def _read(self, places: Mapping[str, _Place]) -> dict[str, AnyArray]:
        if self._file is None:
            raise ValueError("nothing was written")
        return {name: place.view(self._file) for name, place in places.items()}


@dataclass(frozen=True)
class _Place:
    """Where an array stands in the file."""

    offset: int
    shape: Shape
    dtype: Any

    def view(self, file: IO[bytes]) -> AnyArray:
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.asarray(np.memmap(file, self.dtype, "r", self.offset, self.shape))


def _write_all(file: IO[bytes], data: Any) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]
