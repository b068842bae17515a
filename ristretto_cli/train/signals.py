"""SIGINT, SIGHUP and SIGTERM during a training: they request a snapshot, or a snapshot and the end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType


class Request(Enum):
    """The effect of a signal; the values are those of Caffe's flags."""

    NONE = "none"
    SNAPSHOT = "snapshot"
    STOP = "stop"


class Requests:
    """Pending requests by signals; a call returns the next one and clears it.

    A second SIGINT before the first one is handled, or after one that requested a stop, raises KeyboardInterrupt, so
    that pressing ^C twice ends the training at once. sigterm: None if SIGTERM is not handled here.
    """

    def __init__(
        self,
        sigint: Request = Request.STOP,
        sighup: Request = Request.SNAPSHOT,
        sigterm: Request | None = None,
    ) -> None:
        # As in Caffe, SIGHUP goes before SIGINT, and the same signal twice counts once.
        self._effects = {signal.SIGHUP: sighup, signal.SIGINT: sigint}
        if sigterm is not None:
            self._effects[signal.SIGTERM] = sigterm
        self._pending: list[signal.Signals] = []
        self._stopping = False

    def __call__(self) -> Request:
        for number in self._effects:
            if number in self._pending:
                self._pending = [other for other in self._pending if other != number]
                return self._effects[number]
        return Request.NONE

    @property
    def signals(self) -> tuple[signal.Signals, ...]:
        """The signals to be handled."""
        return tuple(self._effects)

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """The signal's handler."""
        received = signal.Signals(number)
        effect = self._effects[received]
        if received == signal.SIGINT and effect is not Request.NONE:
            if self._stopping or received in self._pending:
                raise KeyboardInterrupt
            self._stopping = effect is Request.STOP
        if received not in self._pending:
            self._pending.append(received)


@contextmanager
def listening(requests: Requests) -> Iterator[None]:
    """Handle the signals during the block; only for the main thread."""
    before = {number: signal.signal(number, requests.receive) for number in requests.signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
