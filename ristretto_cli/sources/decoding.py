"""Threads that decode the images of a batch: OpenCV releases the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ristretto_cli.threads import default_threads

T = TypeVar("T")
R = TypeVar("R")

_MAX_THREADS = 8


def decoding_threads() -> int:
    """The number of threads that decode the images of a batch."""
    return min(_MAX_THREADS, default_threads())


class Workers:
    """map() over threads, with results in the order of the items; the threads start when first needed."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        threads = decoding_threads()
        if len(items) < 2 or threads == 1:
            return [function(item) for item in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        return list(self._pool.map(function, items))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
