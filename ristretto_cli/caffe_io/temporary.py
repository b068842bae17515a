"""Unfinished outputs: hidden files next to the final one, locked while being written, always cleaned up.

A process that is killed cannot remove its unfinished outputs. But the system releases its locks, so the next
process that writes to the same name recognizes them. A process id would not do: containers, and machines that share a
network drive, have separate ids.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

_ENDING = ".ristretto"
_MAX_NAME_LENGTH = 50  # characters of the final name that the temporary one begins with
_LOCK = ".unfinished"  # the file in an unfinished folder that is locked
_REMOVALS = 3  # attempts, since a thread of LevelDB may add a file meanwhile

_undo: dict[object, Callable[[], object]] = {}


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """An empty file next to `target` that replaces it at the end of the block, or is removed if the block raises.

    OSError if it cannot be written, which some disks report only at the end.
    """
    remove_leftovers(target.parent, target.name)
    with _unfinished(target, folder=False) as (temporary, lock):
        yield temporary
        os.fsync(lock)
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)


class NewFolder:
    """A folder that is being filled. path: its temporary path."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target

    def finish(self) -> None:
        """Rename it to its final name. OSError as for new_file, and if the name exists by now."""
        for file in self.path.rglob("*"):
            _sync(file)
        self.path.rename(self._target)
        (self._target / _LOCK).unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[NewFolder]:
    """A folder next to `target`, with a hidden file; removed at the end of the block unless it was finished."""
    remove_leftovers(target.parent, target.name)
    with _unfinished(target, folder=True) as (temporary, _):
        yield NewFolder(temporary, target)


def remove_leftovers(folder: Path, name: str, *, prefix: bool = False) -> None:
    """Remove the unfinished outputs for `folder`/`name` of dead processes.

    prefix: for all names with this prefix. Outputs of live processes are kept, and so are those that cannot be locked
    or removed.
    """
    more = ".*" if prefix else ""
    left = re.compile(rf"\.{re.escape(name[:_MAX_NAME_LENGTH])}{more}\.[0-9a-f]{{12}}{re.escape(_ENDING)}", re.DOTALL)
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if left.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_if_dead(path)


@contextmanager
def undone_at_termination(undo: Callable[[], object]) -> Iterator[None]:
    """During the block, `undo_all` calls `undo`."""
    key = object()
    _undo[key] = undo
    try:
        yield
    finally:
        del _undo[key]


def undo_all() -> None:
    """Remove all unfinished outputs of this process, which is about to end. Safe in signal handlers."""
    for undo in list(_undo.values()):
        with suppress(Exception):
            undo()


@contextmanager
def _unfinished(target: Path, *, folder: bool) -> Iterator[tuple[Path, int]]:
    """A new file or folder next to target, and the descriptor of its locked file; removed at the end of the block."""
    with ExitStack() as stack:
        lock = None
        while lock is None:
            temporary = target.with_name(f".{target.name[:_MAX_NAME_LENGTH]}.{os.urandom(6).hex()}{_ENDING}")
            stack.enter_context(undone_at_termination(partial(_remove, temporary)))
            stack.callback(_remove, temporary)
            lock = _create(temporary, folder)
        # Closed before it is removed: a network drive keeps an open file under another name.
        stack.callback(os.close, lock)
        yield temporary, lock


def _create(temporary: Path, folder: bool) -> int | None:
    """Create and lock it; None if another process has removed it as a leftover in between."""
    file = temporary
    if folder:
        temporary.mkdir()
        file = temporary / _LOCK
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileNotFoundError:
        if folder:
            return None
        raise
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = not file.exists()
    except BlockingIOError:
        taken = True
    except OSError:  # no locks on this disk, so no process removes leftovers
        taken = False
    if taken:
        os.close(lock)
        return None
    return lock


def _remove_if_dead(path: Path) -> None:
    file = path
    if path.is_dir() and not path.is_symlink():
        entries = os.listdir(path)  # noqa: PTH208
        if not entries:
            path.rmdir()  # fails if its process has just created the lock
            return
        if _LOCK not in entries:  # half removed: the lock is created first
            _remove(path)
            return
        file = path / _LOCK
    lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    for _ in range(_REMOVALS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if not os.path.lexists(path):
            return


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
