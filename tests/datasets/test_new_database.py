"""New databases: what they hold, and that they are there whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ristretto_cli.datasets.new_database import Backend, new_database
from ristretto_cli.errors import RistrettoError

from .conftest import backend_or_skip, records

BACKENDS = ["lmdb", "leveldb"]


@pytest.mark.parametrize("name", BACKENDS)
def test_it_holds_what_was_put_by_key(here: Path, name: str) -> None:
    backend = backend_or_skip(name)
    with new_database("db", backend) as new:
        for i in reversed(range(2500)):
            new.put(b"%08d" % i, b"value %d" % i)
    assert new.count == 2500
    found = records("db", backend)
    assert list(found.items())[:2] == [("00000000", b"value 0"), ("00000001", b"value 1")]
    assert len(found) == 2500
    assert [path.name for path in here.iterdir()] == ["db"]


def test_an_lmdb_grows_beyond_its_first_size(here: Path) -> None:
    value = bytes(30 << 20)
    with new_database("db", Backend.LMDB) as new:
        for i in range(5):
            new.put(b"%d" % i, value)
    assert {key: len(value) for key, value in records("db").items()} == dict.fromkeys("01234", 30 << 20)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("fault", [KeyboardInterrupt(), RistrettoError("a bad image")])
def test_nothing_stays_of_one_that_was_not_finished(here: Path, name: str, fault: BaseException) -> None:
    with pytest.raises(type(fault)), new_database("db", backend_or_skip(name)) as new:
        for i in range(1500):
            new.put(b"%d" % i, b"value")
        raise fault
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", ["database", "empty folder", "file", "dangling link"])
def test_what_is_there_is_refused_and_stays(here: Path, name: str, kind: str) -> None:
    backend = backend_or_skip(name)
    if kind == "database":
        with new_database("db", backend) as new:
            new.put(b"key", b"old")
    elif kind == "empty folder":
        Path("db").mkdir()
    elif kind == "file":
        Path("db").write_text("a file")
    else:
        Path("db").symlink_to("nowhere")
    with pytest.raises(RistrettoError) as caught, new_database("db/" if kind == "database" else "db", backend):
        pytest.fail("the block is not to be run")
    assert "db" in str(caught.value)
    assert str(caught.value).endswith(": already exists. Remove it first, or choose another name.")
    assert [path.name for path in here.iterdir()] == ["db"]
    if kind == "database":
        assert records("db", backend) == {"key": b"old"}


def test_what_comes_into_being_meanwhile_is_not_overwritten(here: Path) -> None:
    with pytest.raises(RistrettoError, match=r"^db: cannot be written: directory not empty$"):  # noqa: SIM117
        with new_database("db", Backend.LMDB) as new:
            new.put(b"key", b"value")
            Path("db").mkdir()
            Path("db/other").touch()
    assert [str(path) for path in Path().rglob("*")] == ["db", "db/other"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", "the database has no name"),
        ("no/db", "no/db: the folder {here}/no does not exist. Create it first."),
        ("a\0b", "'a\\x00b': invalid folder name"),
    ],
)
def test_a_place_where_it_cannot_be_is_reported_before_any_work(here: Path, path: str, line: str) -> None:
    with pytest.raises(RistrettoError) as caught, new_database(path, Backend.LMDB):
        pytest.fail("the block is not to be run")
    assert str(caught.value) == line.format(here=here)


def test_a_key_that_lmdb_cannot_hold_is_refused(here: Path) -> None:
    with new_database("db", Backend.LMDB) as new:
        new.put(b"k" * 511, b"")
        with pytest.raises(
            RistrettoError, match=r'^db: the key "k{40}\.\.\." has 512 bytes; the database takes at most 511'
        ):
            new.put(b"k" * 512, b"")


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("call", "fault", "line"),
    [
        ("fsync", errno.ENOSPC, "no space left on device. Free some space, or write to another disk."),
        ("fsync", errno.EIO, "input/output error. The disk may be failing: write to another one."),
        ("rename", errno.EDQUOT, "disk quota exceeded. Free some space in your quota, or write to another disk."),
    ],
)
def test_a_fault_of_the_disk_at_the_end_is_reported(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: str, fault: int, line: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(fault, os.strerror(fault))

    with pytest.raises(RistrettoError) as caught, new_database("db", backend_or_skip(name)) as new:
        new.put(b"key", b"value")
        monkeypatch.setattr(os, call, fail)
    assert str(caught.value) == f"db: cannot be written: {line}"
    assert list(here.iterdir()) == []


def test_a_map_that_cannot_grow_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a limit on the address space."""

    class Environment:
        def __init__(self, real: Any) -> None:
            self.begin, self.info, self.close = real.begin, real.info, real.close

        def set_mapsize(self, size: int) -> None:
            raise lmdb.MemoryError("mdb_env_set_mapsize: Cannot allocate memory")

    with pytest.raises(RistrettoError) as caught, new_database("db", Backend.LMDB) as new:
        store: Any = new._store
        monkeypatch.setattr(store, "_environment", Environment(store._environment))
        for i in range(5):
            new.put(b"%d" % i, bytes(30 << 20))
    assert str(caught.value) == "db: cannot be written: cannot allocate memory"
    assert list(here.iterdir()) == []


def test_equal_records_make_equal_lmdbs(here: Path) -> None:
    """What glibc fills new memory with must not get into a file."""
    code = (
        "import sys\n"
        "from ristretto_cli.datasets.new_database import Backend, new_database\n"
        "with new_database(sys.argv[1], Backend.LMDB) as new:\n"
        "    for i in range(3000):\n"
        "        new.put(b'%010d' % (i * 7919 % 3000), bytes([i % 256]) * (i * 37 % 6000))\n"
    )
    for name, byte in (("a", "85"), ("b", "170")):
        environment = {**os.environ, "MALLOC_PERTURB_": byte}
        subprocess.run([sys.executable, "-c", code, name], env=environment, check=True)
    assert Path("a/data.mdb").read_bytes() == Path("b/data.mdb").read_bytes()
    assert Path("a/lock.mdb").read_bytes() == Path("b/lock.mdb").read_bytes()


def test_the_lock_file_serves_who_opens_the_lmdb_with_locks(here: Path) -> None:
    with new_database("db", Backend.LMDB) as new:
        new.put(b"key", b"value")
    with lmdb.open("db") as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"more", b"value")
        assert environment.reader_check() == 0
        assert environment.stat()["entries"] == 2
    assert sorted(path.name for path in Path("db").iterdir()) == ["data.mdb", "lock.mdb"]
