"""Reading of LMDB and LevelDB as in Caffe: records in the order of their keys. Databases are not modified."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ristretto_cli.caffe_io.temporary import undone_at_termination
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.sources.lmdb_file import BadLmdb, LmdbFile

Record: TypeAlias = tuple[bytes, bytes]  # key, value


class Database(Protocol):
    """An open database. records: one pass over all of them, in the order of the keys."""

    def records(self) -> Iterator[Record]: ...
    def close(self) -> None: ...


class Lmdb:
    """An LMDB folder, read without locks, so that it may be on a read-only disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        file = path / "data.mdb"
        if not file.is_file():
            raise LayerError(f"{path} is not an LMDB database: no data.mdb in it")
        if not file.stat().st_size:
            raise LayerError(f"{path} cannot be read as LMDB: data.mdb is empty")
        try:
            self._file = LmdbFile(file)
        except BadLmdb as fault:
            raise LayerError(f"{path} cannot be read as LMDB: {fault}") from None
        except OSError as fault:
            raise LayerError(f"{path} cannot be read as LMDB: {fault.strerror or fault}") from None
        size, needed = self._file.size, self._file.needed
        if size < needed:
            self._file.close()
            raise LayerError(f"{path} is truncated: data.mdb has {size} of {needed} bytes")

    def records(self) -> Iterator[Record]:
        try:
            yield from self._file.records()
        except BadLmdb as fault:
            raise RistrettoError(f"the database is damaged: {fault}", where=str(self._path)) from None
        except OSError as fault:
            raise RistrettoError(f"cannot be read: {fault.strerror or fault}", where=str(self._path)) from None

    def close(self) -> None:
        self._file.close()


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
        self._copy = ""
        try:
            double = tempfile.TemporaryDirectory(prefix="ristretto-leveldb-")
            self._copy = double.name
            self._double.enter_context(undone_at_termination(double.cleanup))
            self._double.enter_context(double)
            _mirror(path, Path(double.name))
            self._db = plyvel.DB(double.name, create_if_missing=False, paranoid_checks=True)
        except plyvel.Error as error:  # some of which are OSErrors, too
            self._double.close()
            raise LayerError(f"{path} cannot be read as LevelDB: {self._reason(error)}") from None
        except OSError as error:
            self._double.close()
            what = f"{path} cannot be read through a temporary copy: {error.strerror or error}"
            raise LayerError(what, hint="Set TMPDIR to a folder with more space.") from None

    def records(self) -> Iterator[Record]:
        try:
            # plyvel's other iterator takes an error at the start of a table for the end of the records.
            with self._db.raw_iterator(verify_checksums=True) as iterator:
                iterator.seek_to_first()
                while iterator.valid():
                    yield iterator.item()
                    iterator.next()
        except self._error as error:
            raise RistrettoError(f"the database is damaged: {self._reason(error)}", where=str(self._path)) from None

    def close(self) -> None:
        self._db.close()
        self._double.close()

    def _reason(self, error: Exception) -> str:
        # plyvel passes LevelDB's messages on as bytes; they name files of the copy.
        words = error.args[0] if error.args else ""
        text = words.decode(errors="replace") if isinstance(words, bytes) else str(error)
        return text.replace(self._copy, str(self._path)) if self._copy else text


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
