"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ristretto_cli.caffe_io.files import atomic_write, check_writable, write_atomically
from ristretto_cli.errors import RistrettoError


def test_text_and_bytes_are_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "é\n")
    write_atomically(tmp_path / "b", b"\xff")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"
    assert (tmp_path / "b").read_bytes() == b"\xff"


def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    with pytest.raises(KeyError), atomic_write(file) as temporary:
        temporary.write_text("new")
        raise KeyError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_old_files_mode_is_kept_and_a_new_ones_is_the_usual(tmp_path: Path) -> None:
    old, new, usual = tmp_path / "old", tmp_path / "new", tmp_path / "usual"
    old.write_text("")
    old.chmod(0o640)
    usual.write_text("")
    write_atomically(old, "x")
    write_atomically(new, "x")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert new.stat().st_mode == usual.stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_a_device_is_written_directly() -> None:
    write_atomically(os.devnull, "x")
    assert not Path(os.devnull).is_file()


def test_a_long_name_is_no_trouble(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 250), "x")
    assert (tmp_path / ("n" * 250)).read_text() == "x"


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("none/a", "does not exist"),
        ("", "is a folder"),
        ("n" * 300, "name too long"),
        ("a\0b", "invalid file name"),
    ],
)
def test_what_cannot_be_written_is_reported_before_and_at_writing(tmp_path: Path, name: str, reported: str) -> None:
    with pytest.raises(RistrettoError, match=reported):
        check_writable(tmp_path / name)
    with pytest.raises(RistrettoError, match=reported):
        write_atomically(tmp_path / name, "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_protected_folder_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(RistrettoError, match="permission denied"):
        check_writable(tmp_path / "a")


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
