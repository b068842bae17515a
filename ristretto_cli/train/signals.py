"""What SIGINT and SIGHUP ask of a training: a snapshot, or a snapshot and the end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType


class Request(Enum):
    """What a signal asks for; the values are those of Caffe's flags."""

    NONE = "none"
    SNAPSHOT = "snapshot"
    STOP = "stop"


class Requests:
    """What was asked for since it was last looked at: call it to know, and to have it forgotten.

    A SIGINT behind one that was not answered yet, or behind one that asked to stop, is a KeyboardInterrupt: whoever
    presses ^C twice wants it to end now.
    """

    def __init__(self, sigint: Request = Request.STOP, sighup: Request = Request.SNAPSHOT) -> None:
        self._effects = {signal.SIGINT: sigint, signal.SIGHUP: sighup}
        self._pending: list[signal.Signals] = []
        self._stopping = False

    def __call__(self) -> Request:
        # As in Caffe, SIGHUP goes first, and the same signal twice counts once.
        for number in (signal.SIGHUP, signal.SIGINT):
            if number in self._pending:
                self._pending = [other for other in self._pending if other != number]
                return self._effects[number]
        return Request.NONE

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
    """Have the two signals ask for their effects while the block runs; to be entered in the main thread."""
    before = {number: signal.signal(number, requests.receive) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
