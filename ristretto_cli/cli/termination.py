"""SIGTERM and SIGHUP: unfinished outputs are removed, then the signal ends the process as it does by default."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ristretto_cli.wire.temporary import undo_all


def clean_up_on_termination() -> None:
    """From now on, remove what is unfinished before one of the signals ends the process; for the main thread.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. The work is done in the handler: an exception
    would have to pass through code that waits for threads, or that catches it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    undo_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container is not ended by a signal
