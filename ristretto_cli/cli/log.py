"""The log on stderr, in glog's line format, which scripts for Caffe parse.

Lower layers of the package log to `logging.getLogger("ristretto")`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import datetime

# glog's severities: 0 info, 1 warning, 2 error, 3 fatal.
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\t\n"}


def configure(environ: Mapping[str, str] = os.environ) -> None:
    """Send the log to stderr, from severity GLOG_minloglevel upwards (default 0: everything).

    A further call only updates the severity.
    """
    logger = logging.getLogger("ristretto")
    logger.setLevel(_LEVELS[_min_level(environ.get("GLOG_minloglevel", ""))])
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())


def printable(text: str) -> str:
    """The text with control characters other than tab and newline escaped (`\\x1b`).

    Names from files reach the terminal and must not control it.
    """
    return text.translate(_CONTROLS)


class GlogFormatter(logging.Formatter):
    """`I1120 08:26:57.751245 28616 quantization.cpp:98] Use CPU.`; each line of a message has the prefix."""

    def format(self, record: logging.LogRecord) -> str:
        severity = "IWEF"[sum(record.levelno >= level for level in _LEVELS[1:])]
        time = datetime.fromtimestamp(record.created).strftime("%m%d %H:%M:%S.%f")
        # Records are formatted in the thread that logs them.
        prefix = f"{severity}{time} {threading.get_native_id():5d} {record.filename}:{record.lineno}] "
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        return "\n".join(prefix + line for line in printable(message).split("\n"))


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current sys.stderr, which the progress bar replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(GlogFormatter())

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr


def _min_level(text: str) -> int:
    try:
        return min(max(int(text), 0), len(_LEVELS) - 1)
    except ValueError:
        return 0  # glog reads anything but a number as 0
