"""Writing a new LMDB or LevelDB database, as Caffe reads them: it appears whole or not at all."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import lmdb

from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.database import Record

log = logging.getLogger("ristretto")

# Caffe commits every 1000 records. Large ones are committed sooner: with a megabyte at a time the allocator uses the
# same memory again, and a database of images is written in a third of the time.
_MOST_PENDING, _MOST_PENDING_BYTES = 1000, 1 << 20
_FIRST_MAP_BYTES = 64 << 20  # doubled when full; the file is as long as what it holds
_LONGEST_VALUE = 2**31 - 1  # what protobuf reads as one message


class Backend(Enum):
    """The kinds of databases, by the names that flags have for them."""

    LMDB = "lmdb"
    LEVELDB = "leveldb"


class NewDatabase:
    """A database while it is filled. count: how many records it has been given."""

    def __init__(self, store: _Store, where: str) -> None:
        self.count = 0
        self._store = store
        self._where = where
        self._pending: list[Record] = []
        self._pending_bytes = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record. RistrettoError where the database cannot hold it, or the disk is full."""
        longest = self._store.longest_key
        if not 0 < len(key) <= longest:
            shown = os.fsdecode(key[:40])
            what = f'the key "{shown}..." has {len(key)} bytes, and the database takes {longest}'
            raise RistrettoError(what, where=self._where, remedy="Shorten the names.")
        if len(value) > _LONGEST_VALUE:
            raise RistrettoError(f'the record "{os.fsdecode(key)}" is larger than 2 GB', where=self._where)
        self._pending.append((key, value))
        self._pending_bytes += len(value)
        self.count += 1
        if len(self._pending) >= _MOST_PENDING or self._pending_bytes >= _MOST_PENDING_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what is pending."""
        if self._pending:
            self._store.write(self._pending)
        self._pending, self._pending_bytes = [], 0


@contextmanager
def new_database(path: str, backend: Backend) -> Iterator[NewDatabase]:
    """A database to be filled, which takes its place at `path` behind the block; nothing stays if that raises.

    RistrettoError where there is something at `path`, as in Caffe, or it cannot be written.
    """
    target = check_new(path)
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(6)}")
    try:
        store = _open(temporary, path, backend)
        log.info("Opened %s %s", backend.value, path)
        try:
            database = NewDatabase(store, path)
            yield database
            database.commit()
        finally:
            store.close()
        try:
            temporary.rename(target)
        except OSError as fault:
            raise _unwritable(path, fault) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(path: str) -> Path:
    """Where a new database is to be. RistrettoError where there is something, or it could not be made."""
    try:
        if path and os.path.lexists(path):
            raise RistrettoError("already exists", where=path, remedy="Remove it first, or give another name.")
        target = Path(os.path.realpath(path))
    except ValueError:  # a zero byte in the name
        raise RistrettoError("this is no folder name", where=repr(path)) from None
    if not path or not target.name:
        raise RistrettoError("the database has no name")
    if not target.parent.is_dir():
        what = f"the folder {target.parent} does not exist"
        raise RistrettoError(what, where=path, remedy="Create it first.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise RistrettoError("cannot be written: permission denied", where=path)
    return target


class _Store(Protocol):
    """What differs between the backends. longest_key: in bytes."""

    longest_key: int

    def write(self, records: Sequence[Record]) -> None: ...
    def close(self) -> None: ...


def _open(folder: Path, path: str, backend: Backend) -> _Store:
    try:
        folder.mkdir()
        return _Lmdb(folder, path) if backend is Backend.LMDB else _LevelDb(folder, path)
    except OSError as fault:
        raise _unwritable(path, fault) from None


class _Lmdb:
    def __init__(self, folder: Path, where: str) -> None:
        self._where = where
        try:
            # Without waiting for the disk: what is not finished is thrown away in any case.
            self._environment = lmdb.open(
                str(folder), map_size=_FIRST_MAP_BYTES, mode=0o664, sync=False, metasync=False, meminit=False
            )
        except lmdb.Error as fault:
            raise _unwritable(where, fault) from None
        self.longest_key = int(self._environment.max_key_size())

    def write(self, records: Sequence[Record]) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as fault:
                raise _unwritable(self._where, fault) from None

    def close(self) -> None:
        self._environment.close()


class _LevelDb:
    longest_key = _LONGEST_VALUE

    def __init__(self, folder: Path, where: str) -> None:
        try:
            import plyvel
        except ImportError:
            raise RistrettoError(
                f"{where}: writing LevelDB needs plyvel", remedy="pip install 'ristretto-cli[leveldb]'"
            ) from None
        self._where = where
        self._error: Any = plyvel.Error
        try:
            # Caffe's own settings.
            self._db = plyvel.DB(
                str(folder),
                create_if_missing=True,
                error_if_exists=True,
                block_size=1 << 16,
                write_buffer_size=256 << 20,
                max_open_files=100,
            )
        except plyvel.Error as fault:
            raise _unwritable(where, fault) from None

    def write(self, records: Sequence[Record]) -> None:
        try:
            with self._db.write_batch() as batch:
                for key, value in records:
                    batch.put(key, value)
        except self._error as fault:
            raise _unwritable(self._where, fault) from None

    def close(self) -> None:
        self._db.close()


def _unwritable(path: str, fault: Exception) -> RistrettoError:
    words = fault.strerror if isinstance(fault, OSError) and fault.strerror else fault.args[0] if fault.args else fault
    reason = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
    # lmdb puts the name of its function before the reason.
    return RistrettoError(f"cannot be written: {reason.rpartition(': ')[2].lower()}", where=path)
