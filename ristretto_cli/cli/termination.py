"""SIGTERM and SIGHUP: removes unfinished outputs, then lets the signal end the process as by default."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ristretto_cli.caffe_io.temporary import undo_all


def clean_up_on_termination() -> None:
    """Install the handlers that remove unfinished outputs; call it from the main thread.

    An ignored signal, such as SIGHUP under nohup, stays ignored. The work is done in the handler: an exception
    would have to pass through code that waits for threads, or that catches it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    undo_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # a signal does not end the first process of a container
