"""A build that runs in the background while the caller does something else."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundBuild(Generic[T]):
    """At most one object that is built in a thread before it is needed. Call close() at the end."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "background")
        self._pending: tuple[Hashable, Future[T]] | None = None

    def submit(self, key: Hashable, build: Callable[[], T]) -> None:
        """Start to build the object of a key; an earlier build that nobody asked for is discarded."""
        self._discard()
        self._pending = key, self._executor.submit(build)

    def result(self, key: Hashable, build: Callable[[], T]) -> T:
        """The object that was submitted under this key, otherwise one that is built now. Raises what `build` raised."""
        if self._pending is None or self._pending[0] != key:
            self._discard()
            return build()
        (_, future), self._pending = self._pending, None
        return future.result()

    def close(self) -> None:
        """Discard a pending build and end the thread."""
        self._discard()
        self._executor.shutdown()

    def _discard(self) -> None:
        # Wait for it, so that two objects never exist at once; its errors concern nobody.
        if self._pending is not None and not self._pending[1].cancel():
            self._pending[1].exception()
        self._pending = None
