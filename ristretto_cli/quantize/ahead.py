"""Making one thing ahead, in a thread, while another one is used."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """At most one thing that is made before it is asked for. Use as a context manager, which waits for the thread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "ahead")
        self._made: tuple[Hashable, Future[T]] | None = None

    def begin(self, key: Hashable, make: Callable[[], T]) -> None:
        """Start to make what will be asked for under a key; what was made before and not asked for is dropped."""
        self._drop()
        self._made = key, self._threads.submit(make)

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was begun under this key, or else what is made now. Raises what making it raised."""
        if self._made is None or self._made[0] != key:
            self._drop()
            return make()
        (_, future), self._made = self._made, None
        return future.result()

    def _drop(self) -> None:
        # What is dropped is waited for, so that there are never two; its faults are nobody's.
        if self._made is not None and not self._made[1].cancel():
            self._made[1].exception()
        self._made = None

    def close(self) -> None:
        """Drop what was begun, and end the thread."""
        self._drop()
        self._threads.shutdown()
