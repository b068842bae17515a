"""A cache of arrays: in memory up to a budget, spilled to a temporary file beyond it."""

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

CachedArrays: TypeAlias = Callable[[], dict[str, AnyArray]]  # returns the arrays of one `put`, as views


class ArrayCache:
    """Holds arrays until the process ends: up to memory_bytes in memory, the others in a temporary file.

    The file is unlinked, so it disappears with the process, even if that is killed. It uses at most half of the free
    space on its disk. If that is not enough, or writing fails, the cache is full, which is logged once.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_left = memory_bytes
        self._file: IO[bytes] | None = None
        self._end = 0
        self.full = False

    def put(self, arrays: Mapping[str, AnyArray]) -> CachedArrays | None:
        """Cache these arrays, which must not be modified afterwards; None if the cache is full."""
        size = sum(array.nbytes for array in arrays.values())
        if self.full:
            return None
        if size <= self._memory_left:
            self._memory_left -= size
            held = dict(arrays)
            return lambda: dict(held)
        try:
            return self._spill(arrays, size)
        except OSError as error:
            self.full = True
            # tempdir is None if every folder for temporary files is full.
            folder = tempfile.tempdir or "The folder for temporary files"
            log.warning("%s has no space for the cache (%s): data are read again for each net.", folder, error.strerror)
            return None

    def _spill(self, arrays: Mapping[str, AnyArray], size: int) -> CachedArrays:
        if shutil.disk_usage(tempfile.gettempdir()).free < self._end + 2 * size:
            raise OSError(0, "half of the free space is in use")
        if self._file is None:
            # Unbuffered: after a failed write, a buffer would be written again when the file is closed.
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

        return partial(self._read, places)  # refers to the cache, so the file stays open as long as it is needed

    def _read(self, places: Mapping[str, _Place]) -> dict[str, AnyArray]:
        if self._file is None:
            raise ValueError("nothing was written")
        return {name: place.view(self._file) for name, place in places.items()}


@dataclass(frozen=True)
class _Place:
    """The location of an array in the file."""

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
