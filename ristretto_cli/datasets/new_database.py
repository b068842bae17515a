"""Creation of LMDB and LevelDB databases for Caffe; a database appears atomically."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from ristretto_cli.caffe_io.files import cannot_write
from ristretto_cli.caffe_io.temporary import new_folder
from ristretto_cli.errors import RistrettoError
from ristretto_cli.libraries import lmdb
from ristretto_cli.sources.database import Record

log = logging.getLogger("ristretto")

# Caffe commits every 1000 records. Large ones are committed sooner: with a megabyte at a time the allocator uses the
# same memory again, and a database of images is written in a third of the time.
_MAX_PENDING, _MAX_PENDING_BYTES = 1000, 1 << 20
_FIRST_MAP_BYTES = 64 << 20  # doubled when full; the file is as long as its content
_MAX_VALUE_LENGTH = 2**31 - 1  # protobuf's limit of one message
_LOCK_BYTES = 8192  # LMDB's lock file for the usual 126 readers

# Disk errors: plyvel reports them only as text, and so does lmdb before 1.5.
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)


class Backend(Enum):
    """The kinds of databases, by their names in flags."""

    LMDB = "lmdb"
    LEVELDB = "leveldb"


class NewDatabase:
    """A database while it is being filled. count: the number of records so far."""

    def __init__(self, store: _Store, where: str) -> None:
        self.count = 0
        self._store = store
        self._where = where
        self._pending: list[Record] = []
        self._pending_bytes = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record. RistrettoError if the database cannot hold it, or the disk is full."""
        limit = self._store.max_key_bytes
        if not 0 < len(key) <= limit:
            shown = os.fsdecode(key[:40])
            what = f'the key "{shown}..." has {len(key)} bytes; the database takes at most {limit}'
            raise RistrettoError(what, where=self._where, hint="Shorten the names.")
        if len(value) > _MAX_VALUE_LENGTH:
            raise RistrettoError(f'the record "{os.fsdecode(key)}" is larger than 2 GB', where=self._where)
        self._pending.append((key, value))
        self._pending_bytes += len(value)
        self.count += 1
        if len(self._pending) >= _MAX_PENDING or self._pending_bytes >= _MAX_PENDING_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write pending records; RistrettoError if the disk is full."""
        if self._pending:
            with _naming(self._where):
                self._store.write(self._pending)
        self._pending, self._pending_bytes = [], 0


@contextmanager
def new_database(path: str, backend: Backend) -> Iterator[NewDatabase]:
    """A database to be filled, which is renamed to `path` after the block, or removed if the block raises.

    RistrettoError if `path` exists, as in Caffe, or cannot be written.
    """
    target = check_new(path)
    with ExitStack() as stack:
        with _naming(path):
            folder = stack.enter_context(new_folder(target))
            store = _Lmdb(folder.path) if backend is Backend.LMDB else _LevelDb(folder.path, path)
            stack.callback(store.close)
        log.info("Opened %s %s", backend.value, path)
        database = NewDatabase(store, path)
        yield database
        database.commit()
        with _naming(path):
            store.close()
            folder.finish()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn disk errors into RistrettoErrors with the database's name."""
    try:
        yield
    except OSError as fault:
        raise cannot_write(path, fault) from None


def check_new(path: str) -> Path:
    """The path of a new database. RistrettoError if it exists or cannot be created."""
    try:
        if path and os.path.lexists(path):
            raise RistrettoError("already exists", where=path, hint="Remove it first, or choose another name.")
        target = Path(os.path.realpath(path))
    except ValueError:  # a zero byte in the name
        raise RistrettoError("invalid folder name", where=repr(path)) from None
    if not path or not target.name:
        raise RistrettoError("the database has no name")
    if not target.parent.is_dir():
        what = f"the folder {target.parent} does not exist"
        raise RistrettoError(what, where=path, hint="Create it first.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise RistrettoError("cannot be written: permission denied", where=path)
    return target


class _Store(Protocol):
    """Interface of the backends. max_key_bytes: in bytes. OSError on disk errors."""

    max_key_bytes: int

    def write(self, records: Sequence[Record]) -> None: ...
    def close(self) -> None: ...


class _Lmdb:
    """An LMDB written without its lock file, which is a shared mapping: on a full disk, touching it is a SIGBUS."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data.mdb"
        # Caffe leaves a lock file, and needs it where it may not create one. Its first user initializes it.
        (folder / "lock.mdb").write_bytes(bytes(_LOCK_BYTES))
        with self._faults_as_os_errors():
            # Nothing is synced before the end, since an unfinished database is discarded. Unused parts of
            # pages are zeroed, so that equal records make equal files.
            self._environment = lmdb.open(
                str(folder), map_size=_FIRST_MAP_BYTES, mode=0o664, sync=False, metasync=False, lock=False
            )
        self.max_key_bytes = int(self._environment.max_key_size())

    def write(self, records: Sequence[Record]) -> None:
        with self._faults_as_os_errors():
            while True:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in records:
                            transaction.put(key, value)
                    return
                except lmdb.MapFullError:
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def close(self) -> None:
        self._environment.close()

    @contextmanager
    def _faults_as_os_errors(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as fault:
            found = _os_error(str(fault))
            if found.errno == errno.EIO:
                # LMDB's message for a short write. The next write gives the cause.
                with self._data.open("ab") as stream:
                    stream.write(bytes(_MAX_PENDING_BYTES))
            raise found from None


class _LevelDb:
    max_key_bytes = _MAX_VALUE_LENGTH

    def __init__(self, folder: Path, where: str) -> None:
        try:
            import plyvel
        except ImportError:
            raise RistrettoError(
                f"{where}: writing LevelDB needs plyvel", hint="pip install 'ristretto-cli[leveldb]'"
            ) from None
        self._error: Any = plyvel.Error
        self._log = folder / "LOG"
        with self._faults_as_os_errors():
            # Caffe's own settings.
            self._db = plyvel.DB(
                str(folder),
                create_if_missing=True,
                error_if_exists=True,
                block_size=1 << 16,
                write_buffer_size=256 << 20,
                max_open_files=100,
            )

    def write(self, records: Sequence[Record]) -> None:
        with self._faults_as_os_errors(), self._db.write_batch() as batch:
            for key, value in records:
                batch.put(key, value)

    def close(self) -> None:
        self._db.close()
        self._log.unlink(missing_ok=True)  # of the library's work, with times: equal records should make equal files

    @contextmanager
    def _faults_as_os_errors(self) -> Iterator[None]:
        try:
            yield
        except self._error as fault:
            words = fault.args[0] if fault.args else ""
            raise _os_error(words.decode(errors="replace") if isinstance(words, bytes) else str(words)) from None


def _os_error(text: str) -> OSError:
    """A database library's error text, "function: reason", as an OSError."""
    reason = text.rpartition(": ")[2]
    return OSError(next((code for code in _DISK_FAULTS if os.strerror(code) == reason), 0), reason)
