"""Reading of LMDB and LevelDB as in Caffe: records in the order of their keys. Databases are not modified."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ristretto_cli.caffe_io.temporary import undone_at_termination
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.libraries import lmdb

Record: TypeAlias = tuple[bytes, bytes]  # key, value


class Database(Protocol):
    """An open database. records: one pass over all of them, in the order of the keys."""

    def records(self) -> Iterator[Record]: ...
    def close(self) -> None: ...


class Lmdb:
    """An LMDB folder, read without locks, so that it may be on a read-only disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shared = _Environment.open(path)
        self._transaction = self._shared.environment.begin()
        self._closed = False

    def records(self) -> Iterator[Record]:
        try:
            yield from self._transaction.cursor()
        except lmdb.Error as error:
            where = str(self._path)
            raise RistrettoError(f"the database is damaged: {_reason(error)}", where=where) from None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._transaction.abort()
            self._shared.release()


class LevelDb:
    """A LevelDB folder, read through a temporary copy, because LevelDB rewrites the files it opens."""

    def __init__(self, path: Path) -> None:
        try:
            import plyvel
        except ImportError:
            raise LayerError(
                f"{path}: reading LevelDB needs plyvel", hint="pip install 'ristretto-cli[leveldb]'"
            ) from None
        self._path = path
        self._error: Any = plyvel.Error
        self._double = ExitStack()
        try:
            double = tempfile.TemporaryDirectory(prefix="ristretto-leveldb-")
            self._double.enter_context(undone_at_termination(double.cleanup))
            self._double.enter_context(double)
            _mirror(path, Path(double.name))
            self._db = plyvel.DB(double.name, create_if_missing=False)
        except plyvel.Error as error:  # some of which are OSErrors, too
            self._double.close()
            raise LayerError(f"{path} cannot be read as LevelDB: {_leveldb_reason(error)}") from None
        except OSError as error:
            self._double.close()
            what = f"{path} cannot be read through a temporary copy: {error.strerror or error}"
            raise LayerError(what, hint="Set TMPDIR to a folder with more space.") from None

    def records(self) -> Iterator[Record]:
        try:
            with self._db.iterator(verify_checksums=True) as iterator:
                yield from iterator
        except self._error as error:
            raise RistrettoError(f"the database is damaged: {_leveldb_reason(error)}", where=str(self._path)) from None

    def close(self) -> None:
        self._db.close()
        self._double.close()


class _Environment:
    """An open LMDB environment, shared by all readers of a folder: LMDB allows one per process."""

    _all: dict[Path, _Environment] = {}  # noqa: RUF012
    _lock = threading.Lock()

    def __init__(self, path: Path, environment: Any) -> None:
        self.environment = environment
        self._path = path
        self._users = 0

    @classmethod
    def open(cls, path: Path) -> _Environment:
        real = path.resolve()
        with cls._lock:
            shared = cls._all.get(real)
            if shared is None:
                shared = cls._all[real] = cls(real, _open_lmdb(path))
            shared._users += 1
            return shared

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                del self._all[self._path]
                self.environment.close()


def _open_lmdb(path: Path) -> Any:
    file = path / "data.mdb"
    if not file.is_file():
        raise LayerError(f"{path} is not an LMDB database: no data.mdb in it")
    if not file.stat().st_size:
        raise LayerError(f"{path} cannot be read as LMDB: data.mdb is empty")
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=True)
    except lmdb.Error as error:
        raise LayerError(f"{path} cannot be read as LMDB: {_reason(error)}") from None
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    # LMDB maps the file: reading past its end would kill the process.
    if file.stat().st_size < needed:
        environment.close()
        size = file.stat().st_size
        raise LayerError(f"{path} is truncated: data.mdb has {size} of {needed} bytes")
    return environment


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2]


def _leveldb_reason(error: Exception) -> str:
    # plyvel passes LevelDB's messages on as bytes.
    words = error.args[0] if error.args else ""
    return words.decode(errors="replace") if isinstance(words, bytes) else str(error)


def _mirror(path: Path, double: Path) -> None:
    """Fill double with links to the tables, which LevelDB never rewrites, and copies of all other files."""
    for file in path.iterdir():
        if file.suffix in (".ldb", ".sst"):
            (double / file.name).symlink_to(file.resolve())
        elif file.is_file() and file.name != "LOCK":
            shutil.copyfile(file, double / file.name)


def endless(database: Database) -> Iterator[Record]:
    """The records, repeated endlessly; none if the database is empty."""
    empty = False
    while not empty:
        empty = True
        for record in database.records():
            empty = False
            yield record
