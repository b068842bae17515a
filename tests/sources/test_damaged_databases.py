"""Databases that are damaged: read correctly, or refused in a line that names them; the process survives."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.database import Lmdb

PAGE = 4096
READ = """
import sys
from pathlib import Path
from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.database import LevelDb, Lmdb

for name in sys.argv[2:]:
    print(name, end=" ", flush=True)
    try:
        database = (Lmdb if sys.argv[1] == "lmdb" else LevelDb)(Path(name))
        try:
            print("read", sum(1 for _ in database.records()), flush=True)
        finally:
            database.close()
    except RistrettoError as fault:
        print("refused", repr(str(fault)), flush=True)
"""


def fill(folder: Path, records: dict[bytes, bytes], *, commits: int = 1, **options: Any) -> Path:
    """An LMDB of pages of 4096 bytes, and its file."""
    items = list(records.items())
    with closing(lmdb.open(str(folder), map_size=1 << 28, sync=False, lock=False)) as environment:
        assert environment.stat()["psize"] == PAGE, "this machine has other pages"
        for part in range(commits):
            with environment.begin(write=True) as transaction:
                for key, value in items[part::commits]:
                    transaction.put(key, value, **options)
    return folder / "data.mdb"


def numbered(count: int, size: int) -> dict[bytes, bytes]:
    return {b"%08d" % i: b"%d" % (i % 10) * size for i in range(count)}


def records(folder: Path) -> list[tuple[bytes, bytes]]:
    with closing(Lmdb(folder)) as database:
        return list(database.records())


@pytest.mark.parametrize(
    ("count", "size"), [(0, 0), (1, 0), (1, 5), (3, 20), (2000, 20), (500, 1900), (500, 3086), (30, 200_000)]
)
@pytest.mark.parametrize("commits", [1, 3])
def test_every_record_is_read(tmp_path: Path, count: int, size: int, commits: int) -> None:
    written = numbered(count, size)
    fill(tmp_path, written, commits=commits)
    assert records(tmp_path) == sorted(written.items())


def test_a_database_from_which_records_were_removed_is_read(tmp_path: Path) -> None:
    rng = random.Random(1)
    written = {rng.randbytes(rng.randrange(1, 400)): rng.randbytes(rng.randrange(6000)) for _ in range(1500)}
    fill(tmp_path, written)
    with closing(lmdb.open(str(tmp_path), map_size=1 << 28, sync=False, lock=False)) as environment:
        for _ in range(5):
            with environment.begin(write=True) as transaction:
                for key in rng.sample(sorted(written), 200):
                    transaction.delete(key)
                    del written[key]
    assert records(tmp_path) == sorted(written.items())


def test_readers_see_the_state_of_the_time_they_were_opened(tmp_path: Path) -> None:
    fill(tmp_path, {b"a": b"1"})
    with closing(Lmdb(tmp_path)) as database:
        fill(tmp_path, {b"b": b"2"})
        assert list(database.records()) == [(b"a", b"1")]
    assert records(tmp_path) == [(b"a", b"1"), (b"b", b"2")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:8], "cannot be read as LMDB: it has fewer than 152 bytes"),
        (lambda data: bytes(PAGE) + data[PAGE:], "cannot be read as LMDB: it does not begin with the first page"),
        (lambda data: data[:PAGE] + bytes(PAGE) + data[2 * PAGE :], "cannot be read as LMDB: a meta page is damaged"),
        (lambda data: data[:20] + b"\2" + data[21:], "cannot be read as LMDB: it has version 2 of the format"),
        (lambda data: data[:40] + b"\7" + data[41:], "cannot be read as LMDB: it has pages of 4103 bytes"),
        (lambda data: data[:12] + data[16:], "cannot be read as LMDB: it was written by another version of LMDB, or"),
        (lambda data: data[:-1], r"is truncated: data.mdb has \d+ of \d+ bytes"),
    ],
)
def test_a_file_that_does_not_begin_or_end_like_an_lmdb_is_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    file = fill(tmp_path, numbered(300, 20))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RistrettoError, match=rf"{tmp_path} {message}"):
        records(tmp_path)


def test_each_page_may_be_zeroed(tmp_path: Path) -> None:
    """All pages but those of the free list, and those inside of a value, are needed."""
    written = numbered(400, 1000) | {b"x": b"x" * 3000}
    file = fill(tmp_path, written)
    data = file.read_bytes()
    refused = 0
    for at in range(0, len(data), PAGE):
        file.write_bytes(data[:at] + bytes(PAGE) + data[at + PAGE :])
        try:
            assert records(tmp_path) == sorted(written.items())
        except RistrettoError as fault:
            assert str(fault).startswith(str(tmp_path))
            refused += 1
    assert refused > len(data) // PAGE * 3 // 4


@pytest.mark.parametrize("name", ["lmdb", "leveldb"])
def test_damaged_databases_end_no_process(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    monkeypatch.chdir(tmp_path)
    rng = random.Random(7)
    names = [f"db{i}" for i in range(80)]
    for each in names:
        written = numbered(rng.choice([5, 100, 400]), rng.choice([20, 800, 5000]))
        file = fill(Path(each), written, commits=2) if name == "lmdb" else _leveldb(Path(each), written, rng)
        file.write_bytes(_damaged(file.read_bytes(), rng))
    done = subprocess.run([sys.executable, "-c", READ, name, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == names
    refused = [(each, reason) for each, result, reason in lines if result == "refused"]
    assert len(refused) > 20
    for each, reason in refused:
        assert each in reason
        assert "\\n" not in reason
        assert "ristretto-leveldb-" not in reason  # the temporary copy


def _leveldb(folder: Path, written: dict[bytes, bytes], rng: random.Random) -> Path:
    """A LevelDB, and one of its files."""
    import plyvel

    with closing(plyvel.DB(str(folder), create_if_missing=True)) as database:
        for key, value in written.items():
            database.put(key, value)
        if rng.random() < 0.7:
            database.compact_range()  # into a table
    return rng.choice([file for file in sorted(folder.iterdir()) if file.stat().st_size])


def _damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    pages = range(0, len(data), PAGE)
    kind = rng.randrange(5)
    at, other = rng.choice(pages), rng.choice(pages)
    length = len(changed[at : at + PAGE])
    if kind == 0:
        changed[at : at + length] = bytes(length)
    elif kind == 1:
        changed[at : at + length] = rng.randbytes(length)
    elif kind == 2:
        changed[at : at + PAGE], changed[other : other + PAGE] = changed[other : other + PAGE], changed[at : at + PAGE]
    elif kind == 3:
        del changed[rng.randrange(len(data)) :]
    else:
        for _ in range(60):  # headers of pages, where most are
            place = min(rng.choice(pages) + rng.randrange(40), len(data) - 1)
            changed[place] = rng.randrange(256)
    return bytes(changed)


def test_a_damaged_table_of_a_leveldb_is_not_taken_for_the_end(tmp_path: Path) -> None:
    plyvel = pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    from ristretto_cli.sources.database import LevelDb

    with closing(plyvel.DB(str(tmp_path), create_if_missing=True)) as database:
        database.put(b"key", bytes(100))
        database.compact_range()
    (table,) = [file for file in tmp_path.iterdir() if file.suffix in (".ldb", ".sst")]
    table.write_bytes(b"\1" + table.read_bytes()[1:])  # in the first block
    with (
        pytest.raises(RistrettoError, match=rf"^{tmp_path}: the database is damaged: "),
        closing(LevelDb(tmp_path)) as read,
    ):
        list(read.records())


@pytest.mark.parametrize("sub", [b"labels", b"x"])
def test_a_database_within_the_database_is_refused(tmp_path: Path, sub: bytes) -> None:
    with closing(lmdb.open(str(tmp_path), max_dbs=1, lock=False)) as environment:
        environment.open_db(sub)
    with pytest.raises(RistrettoError, match=f"the record '{sub.decode()}' is a database of its own"):
        records(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_reported(tmp_path: Path) -> None:
    file = fill(tmp_path, numbered(2000, 100))
    with closing(Lmdb(tmp_path)) as database:
        found = database.records()
        next(found)
        with file.open("r+b") as stream:
            stream.truncate(2 * PAGE)
        with pytest.raises(RistrettoError, match=r"the database is damaged: it has fewer than [0-9]+ bytes"):
            list(found)
