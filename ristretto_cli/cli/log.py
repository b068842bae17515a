"""The log on stderr and in files, in glog's line format, which scripts for Caffe parse.

Lower layers of the package log to `logging.getLogger("ristretto")`. DEBUG is glog's VLOG(1), each level below it the
next VLOG.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ristretto_cli.errors import RistrettoError

# glog's severities: 0 info, 1 warning, 2 error, 3 fatal.
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_SEVERITIES = ("INFO", "WARNING", "ERROR", "FATAL")
_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\t\n"}
_FILES_ONLY = "ristretto_files_only"  # attribute of records that are not for stderr


@dataclass(frozen=True)
class _Settings:
    """glog's settings. verbose: the level of VLOG for modules by their pattern, of which the first that fits counts."""

    log_dir: str = ""
    stderr_level: int = logging.INFO
    min_level: int = logging.INFO
    verbose: tuple[tuple[str, int], ...] = ()
    prefix: bool = True

    def shows(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged at all."""
        if record.levelno > logging.DEBUG:
            return record.levelno >= self.min_level
        wanted = next((level for pattern, level in self.verbose if fnmatch.fnmatchcase(record.module, pattern)), 0)
        return self.min_level <= logging.INFO and _vlog(record.levelno) <= wanted

    @property
    def lowest(self) -> int:
        """The level of the logger."""
        deepest = max((level for _, level in self.verbose), default=0)
        return self.min_level if deepest < 1 or self.min_level > logging.INFO else max(_vlog(deepest), 1)


def configure(
    environ: Mapping[str, str] = os.environ, flags: Mapping[str, Any] | None = None, program: str = "ristretto"
) -> None:
    """Send the log to stderr, and to files if a folder for them is given; by default all of it, except VLOG.

    environ: has glog's settings as GLOG_minloglevel and the like. flags: settings by their names, which override those.
    program: its name in the names of log files. A further call replaces the settings. RistrettoError if the folder
    cannot be written.
    """
    settings = _settings(environ, flags or {})
    if settings.log_dir:
        _prepare(settings.log_dir)
    logger = logging.getLogger("ristretto")
    logger.setLevel(settings.lowest)
    logger.handlers[:] = [each for each in logger.handlers if not isinstance(each, (_StderrHandler, _FileHandler))]
    logger.addHandler(_StderrHandler(settings))
    if settings.log_dir:
        logger.addHandler(_FileHandler(settings, program))


def printable(text: str) -> str:
    """The text with control characters other than tab and newline escaped (`\\x1b`).

    Names from files reach the terminal and must not control it.
    """
    return text.translate(_CONTROLS)


def info_on_stderr() -> bool:
    """Whether lines of severity INFO appear on stderr."""
    logger = logging.getLogger("ristretto")
    handlers = [each for each in logger.handlers if isinstance(each, _StderrHandler)]
    return logger.isEnabledFor(logging.INFO) and any(each.level <= logging.INFO for each in handlers)


def log_to_files(level: int, lines: Iterable[str]) -> None:
    """Log lines in the log files only, if there are any."""
    logger = logging.getLogger("ristretto")
    if any(isinstance(each, _FileHandler) for each in logger.handlers):
        for line in lines:
            logger.log(level, "%s", line, extra={_FILES_ONLY: True}, stacklevel=2)


class GlogFormatter(logging.Formatter):
    """`I1120 08:26:57.751245 28616 quantization.cpp:98] Use CPU.`; each line of a message has the prefix.

    prefix: whether there is one.
    """

    def __init__(self, *, prefix: bool = True) -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        severity = "IWEF"[_severity(record)]
        time = datetime.fromtimestamp(record.created).strftime("%m%d %H:%M:%S.%f")
        # Records are formatted in the thread that logs them.
        prefix = f"{severity}{time} {threading.get_native_id():5d} {record.filename}:{record.lineno}] "
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        return "\n".join((prefix if self._prefix else "") + line for line in printable(message).split("\n"))


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current sys.stderr, which the progress bar replaces."""

    def __init__(self, settings: _Settings) -> None:
        # At DEBUG if VLOG is wanted: the filter decides.
        logging.Handler.__init__(self, 0 if settings.stderr_level <= logging.INFO else settings.stderr_level)
        self.setFormatter(GlogFormatter(prefix=settings.prefix))
        self.addFilter(lambda record: settings.shows(record) and not hasattr(record, _FILES_ONLY))

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr


class _FileHandler(logging.Handler):
    """Appends to glog's files: one for each severity, which also has the lines of higher ones.

    A file is named `caffe.HOST.USER.log.INFO.20161120-082657.PID`, and the link `caffe.INFO` leads to the last one. It
    is created with its first line.
    """

    def __init__(self, settings: _Settings, program: str) -> None:
        super().__init__()
        self.setFormatter(GlogFormatter(prefix=settings.prefix))
        self.addFilter(settings.shows)
        self._folder, self._program = Path(settings.log_dir), program
        self._files: dict[int, Path] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record to the files of its severity and of lower ones."""
        line = self.format(record) + "\n"
        try:
            for severity in range(_severity(record) + 1):
                with self._file(severity).open("a", encoding="utf-8", errors="backslashreplace") as stream:
                    stream.write(line)
        except OSError as fault:
            logger = logging.getLogger("ristretto")
            logger.removeHandler(self)
            logger.warning("The log files cannot be written any more: %s", fault.strerror or fault)

    def _file(self, severity: int) -> Path:
        if severity not in self._files:
            now, name = datetime.now(), _SEVERITIES[severity]
            ending = f"log.{name}.{now:%Y%m%d-%H%M%S}.{os.getpid()}"
            path = self._folder / f"{self._program}.{_host()}.{_user()}.{ending}"
            head = (
                f"Log file created at: {now:%Y/%m/%d %H:%M:%S}\n"
                f"Running on machine: {_host()}\n"
                "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
            )
            with path.open("a", encoding="utf-8") as stream:
                stream.write(head)
            with suppress(OSError):  # a file system without links; the file itself is there
                link = self._folder / f"{self._program}.{name}"
                link.unlink(missing_ok=True)
                link.symlink_to(path.name)
            self._files[severity] = path
        return self._files[severity]


def _settings(environ: Mapping[str, str], flags: Mapping[str, Any]) -> _Settings:
    def given(name: str) -> Any:
        """A setting's value, of a flag or of the environment; None if there is none."""
        return flags[name] if flags.get(name) is not None else environ.get(f"GLOG_{name}")

    threshold, also, only = given("stderrthreshold"), given("alsologtostderr"), given("logtostderr")
    # Caffe's programs set alsologtostderr, so a threshold would never have an effect; here it has one if it is given.
    everything = _is_on(also) if also is not None else threshold is None
    to_stderr = only is not None and _is_on(only)
    folder = given("log_dir") or environ.get("GOOGLE_LOG_DIR", "")
    verbose = [(pattern, _number(level)) for pattern, _, level in _pairs(given("vmodule") or "")]
    prefix = given("log_prefix")
    return _Settings(
        log_dir="" if to_stderr else str(folder),
        stderr_level=logging.INFO if to_stderr or everything else _level(2 if threshold is None else threshold),
        min_level=_level(given("minloglevel") or 0),
        verbose=(*verbose, ("*", _number(given("v") or 0))),
        prefix=prefix is None or _is_on(prefix),
    )


def _pairs(text: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in text.split(",") if part]


def _is_on(value: str | bool) -> bool:
    # As glog reads its environment: an empty variable is on.
    return value if isinstance(value, bool) else value[:1] in ("", "t", "T", "y", "Y", "1")


def _level(value: str | int) -> int:
    return _LEVELS[min(max(_number(value), 0), len(_LEVELS) - 1)]


def _number(value: str | int) -> int:
    try:
        return int(value)
    except ValueError:
        return 0  # glog reads anything but a number as 0


def _vlog(level: int) -> int:
    """The level of VLOG of a level of logging, and the other way round."""
    return logging.DEBUG + 1 - level


def _severity(record: logging.LogRecord) -> int:
    return sum(record.levelno >= level for level in _LEVELS[1:])


def _prepare(folder: str) -> None:
    """Create the folder of the log files, if it is missing; RistrettoError if it cannot be written."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else fault
        raise RistrettoError(f"--log_dir: log files cannot be written there: {reason}", where=folder) from None


def _host() -> str:
    return os.uname().nodename or "localhost"


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user's number
        return "invalid-user"
