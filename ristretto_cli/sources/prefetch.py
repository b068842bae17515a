"""Prefetching: the next batches are produced while the current one is used."""

from __future__ import annotations

import queue
import threading

from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import Array
from ristretto_cli.sources.source import Source

Batch = tuple[Array, ...]


class Prefetch(Source):
    """A source that runs up to `depth` (1 or more) batches ahead of the consumer, in its own thread.

    Exceptions of the source are raised by `next`, in order, and again by each later call. `close` ends the thread
    and closes the source, which the Prefetch owns.
    """

    def __init__(self, source: Source, depth: int = 2) -> None:
        self.shapes = source.shapes
        self._source = source
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(max(1, depth))
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def next(self) -> Batch:
        if self._stop.is_set():
            raise RistrettoError("the data source is closed")
        if self._failure is None:
            item = self._queue.get()
            if not isinstance(item, BaseException):
                return item
            self._failure = item
        raise self._failure

    def close(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        # One free slot is enough for the thread to see the flag: it puts at most one more batch.
        while self._thread.is_alive():
            self._drain()
            self._thread.join(0.01)
        self._drain()
        self._source.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                item: Batch | BaseException = self._source.next()
            except BaseException as error:
                item = error
            self._queue.put(item)
            if isinstance(item, BaseException):
                return

    def _drain(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return
