"""Unfinished outputs: those of dead processes are removed, those of living ones stay."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ristretto_cli.caffe_io import temporary
from ristretto_cli.caffe_io.files import atomic_write, write_atomically
from ristretto_cli.caffe_io.temporary import new_file, new_folder, remove_leftovers, undo_all, undone_at_termination
from ristretto_cli.errors import RistrettoError

WRITER = """
import os, sys
from pathlib import Path
from ristretto_cli.caffe_io.temporary import new_file, new_folder
make, name = sys.argv[1:]
if make == "folder":
    with new_folder(Path(name)) as made:
        (made.path / "data").write_bytes(b"half")
        print("writing", flush=True)
        sys.stdin.read()
else:
    with new_file(Path(name)) as made:
        made.write_bytes(b"half")
        print("writing", flush=True)
        sys.stdin.read()
"""

KINDS = ["file", "folder"]


@contextmanager
def another_writer(kind: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of writing `name`."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WRITER, kind, name], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


def killed_writer(kind: str, name: str) -> None:
    with another_writer(kind, name) as process:
        process.kill()
        assert process.wait() == -signal.SIGKILL


def write(kind: str, name: str) -> None:
    if kind == "file":
        write_atomically(name, b"whole")
        return
    with new_folder(Path(name)) as folder:
        (folder.path / "data").write_bytes(b"whole")
        folder.finish()


def there() -> list[str]:
    return sorted(os.listdir())  # noqa: PTH208


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_writer_removes_what_a_killed_one_left(kind: str) -> None:
    killed_writer(kind, "a")
    (left,) = there()
    assert left.startswith(".a.")
    write(kind, "b")
    assert there() == [left, "b"]
    write(kind, "a")
    assert there() == ["a", "b"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_process_is_writing_stays(kind: str) -> None:
    with another_writer(kind, "a") as process:
        write(kind, "a")
        left, whole = there()
        assert (left[:3], whole) == (".a.", "a")
        path = Path(left, "data") if kind == "folder" else Path(left)
        assert path.read_bytes() == b"half"
        process.communicate()
        assert process.returncode == 0
    assert kind == "folder" or Path("a").read_bytes() == b"half"  # the last one wins
    assert there() == ["a"]


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_two_outputs_of_one_process_whose_names_begin_alike_stay(make: Callable[..., ExitStack]) -> None:
    with ExitStack() as stack:
        made = [stack.enter_context(make(Path("n" * 60 + end))) for end in "ab"]
        assert all(getattr(one, "path", one).exists() for one in made)


def test_a_finished_folder_has_only_its_own_files() -> None:
    write("folder", "a")
    assert os.listdir("a") == ["data"]  # noqa: PTH208


def test_folders_without_a_lock_are_removed() -> None:
    """A process may be killed before it has put the lock there, or while it removes leftovers."""
    Path(".a.0123456789ab.ristretto").mkdir()
    Path(".a.0123456789ac.ristretto/lost").mkdir(parents=True)
    write("folder", "a")
    assert there() == ["a"]


def test_similar_names_are_not_touched() -> None:
    names = [
        *(".a.0123456789ab", ".a.0123456789ab.mine", ".a.0123456789.ristretto", "a.0123456789ab.ristretto"),
        *(".ab.0123456789ab.ristretto", ".a.txt.0123456789ab.ristretto"),
    ]
    for name in names:
        Path(name).touch()
    write("file", "a")
    assert there() == sorted(["a", *names])
    remove_leftovers(Path(), "a", prefix=True)
    assert there() == sorted(["a", *names[:4]])


def test_a_link_is_removed_and_what_it_leads_to_stays() -> None:
    Path("mine").mkdir()
    Path("mine/file").touch()
    Path(".a.0123456789ab.ristretto").symlink_to("mine")
    write("file", "a")
    assert Path("mine/file").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_disk_has_no_locks_files_are_written_and_nothing_of_others_is_removed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_writer(kind, "a")
    (left,) = there()

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(kind, "a")
    assert there() == [left, "a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["while it is removed", "when it is removed"])
def test_one_that_is_taken_for_a_leftover_before_it_is_locked_is_made_again(
    kind: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) > 1:
            return real(descriptor, operation)
        if when == "while it is removed":
            raise BlockingIOError
        (made,) = Path().glob(".a.*")
        temporary._remove(made)
        return real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write(kind, "a")
    assert len(calls) == 2
    assert there() == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_the_disk_reports_at_the_end_leaves_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((OSError, RistrettoError), match=r"(?i)input/output error"):
        write(kind, "a")
    assert there() == []


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "Free some space, or write to another disk."),
        (errno.EDQUOT, "Free some space in your quota, or write to another disk."),
        (errno.EFBIG, "Raise the limit on the size of files (ulimit -f)."),
        (errno.EIO, "The disk may be failing: write to another one."),
    ],
)
def test_faults_of_the_disk_come_with_a_remedy(code: int, hint: str) -> None:
    with pytest.raises(RistrettoError) as caught, atomic_write("a"):
        raise OSError(code, os.strerror(code))
    assert str(caught.value) == f"a: cannot be written: {os.strerror(code).lower()}. {hint}"


def test_all_that_is_unfinished_can_be_undone_at_once() -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("fails")
        raise KeyError

    with ExitStack() as stack:
        for undo in (fail, lambda: calls.append("called")):
            stack.enter_context(undone_at_termination(undo))
        file = stack.enter_context(new_file(Path("a")))
        folder = stack.enter_context(new_folder(Path("b")))
        file.write_bytes(b"half")
        (folder.path / "data").touch()
        undo_all()
        assert there() == []
        file.touch()  # so that it can be given its name
    assert calls == ["fails", "called"]
    undo_all()
    assert calls == ["fails", "called"]
    assert there() == ["a"]
