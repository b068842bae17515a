"""Reading and atomic writing of files, with one-line errors."""

from __future__ import annotations

import codecs
import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ristretto_cli.caffe_io.temporary import new_file
from ristretto_cli.errors import RistrettoError

log = logging.getLogger("ristretto")

_HINTS = {
    errno.ENOSPC: "Free some space, or write to another disk.",
    errno.EDQUOT: "Free some space in your quota, or write to another disk.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f).",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EIO: "The disk may be failing: write to another one.",
}
_OF_LMDB = re.compile(r"(data|lock)\.mdb")
_OF_LEVELDB = re.compile(r"CURRENT|LOCK|LOG|MANIFEST-\d+|\d+\.(ldb|sst|log)")


@contextmanager
def open_to_read(path: str | Path) -> Iterator[BinaryIO]:
    """A file opened for reading bytes; RistrettoError if it cannot be opened or read."""
    with _opened(path) as stream:
        try:
            yield stream
        except OSError as fault:
            raise _explained(path, fault, "read") from None


def without_mark(text: bytes, path: str | Path) -> bytes:
    """The content of a text file without a byte order mark, which editors write; a warning tells of it.

    RistrettoError for the mark of UTF-16.
    """
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        what = "the list begins with the byte order mark of UTF-16"
        raise RistrettoError(what, where=str(path), hint="Save it as UTF-8, without a mark.")
    if text.startswith(codecs.BOM_UTF8):
        log.warning("%s begins with a byte order mark, which is skipped; Caffe takes it for a part of the name.", path)
    return text.removeprefix(codecs.BOM_UTF8)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to `path` at the end, or removed if the block raises.

    So a reader never sees half a file, and the old one survives an error. A target that is not a regular file, such as
    /dev/stdout, is written directly. RistrettoError if the target cannot be written.
    """
    check_writable(path)
    target = _target(path)
    try:
        if target.exists() and not target.is_file():
            yield target
            return
        with new_file(target) as temporary:
            yield temporary
    except OSError as fault:
        raise cannot_write(path, fault) from None


def cannot_write(path: str | Path, fault: OSError) -> RistrettoError:
    """The error for an output that cannot be written: its name, the reason, and a hint if there is one."""
    return _explained(path, fault, "written")


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a file, as atomic_write does; text as UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def check_writable(path: str | Path) -> None:
    """RistrettoError if a file cannot be written; called before long work."""
    try:
        target = _target(path)
        if target.is_dir():
            raise RistrettoError("is a folder, not a file", where=_shown(path), hint="Add a file name.")
        if target.exists() and not target.is_file():
            return
        if not target.parent.is_dir():
            what = f"the folder {target.parent} does not exist"
            raise RistrettoError(what, where=str(path), hint="Create it first.")
        if target.is_symlink():
            raise RistrettoError("cannot be written: too many levels of symbolic links", where=str(path))
        if _is_of_database(target):
            raise RistrettoError("belongs to a database", where=str(path), hint="Choose another name.")
        may_write = os.access(target.parent, os.W_OK | os.X_OK)
        if not may_write or (target.exists() and not os.access(target, os.W_OK)):
            raise RistrettoError("cannot be written: permission denied", where=str(path))
    except OSError as fault:
        raise cannot_write(path, fault) from None
    except ValueError:
        raise RistrettoError("invalid file name", where=repr(str(path))) from None


def _opened(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as fault:
        raise _explained(path, fault, "read") from None
    except ValueError:  # a zero byte in the name
        raise RistrettoError("invalid file name", where=repr(str(path))) from None


def _shown(path: str | Path) -> str:
    return str(path) or '""'  # an empty name is the current folder


def _is_of_database(file: Path) -> bool:
    """Whether replacing the file would damage a database in its folder."""
    marks = {"data.mdb": _OF_LMDB, "CURRENT": _OF_LEVELDB}
    return any(names.fullmatch(file.name) and (file.parent / mark).is_file() for mark, names in marks.items())


def _target(path: str | Path) -> Path:
    given = Path(path)
    if given.exists() and not given.is_file() and not given.is_dir():
        return given  # the link /dev/stdout to a pipe has no other name
    return Path(os.path.realpath(path))  # a link is kept; the file that it points to is replaced


def _explained(path: str | Path, fault: OSError, done: str) -> RistrettoError:
    if isinstance(fault, FileNotFoundError) and done == "read":
        return RistrettoError("this file does not exist", where=str(path))
    if isinstance(fault, IsADirectoryError):
        return RistrettoError("is a folder, not a file", where=_shown(path))
    reason = (fault.strerror or str(fault)).lower()
    hint = _HINTS.get(fault.errno or 0, "") if done == "written" else ""
    return RistrettoError(f"cannot be {done}: {reason}", where=str(path), hint=hint)
