"""The cache of arrays: in memory up to its budget, then in an unlinked file, and full when the disk is."""

from __future__ import annotations

import collections
import errno
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.scoring.array_cache import ArrayCache

A = np.arange(6, dtype=np.float32).reshape(2, 3)  # 24 bytes
B = np.array([7, -8], np.float32)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def got(kept: Any) -> dict[str, Any]:
    assert kept is not None
    return {name: array.tolist() for name, array in kept().items()}


def test_within_the_budget_arrays_stay_where_they_are() -> None:
    kept = ArrayCache(24).put({"a": A})
    assert kept is not None
    assert kept()["a"] is A


def test_what_exceeds_the_budget_comes_back_as_views_of_a_file(temporary: Path) -> None:
    cache = ArrayCache(24)
    first, second, third = cache.put({"a": A}), cache.put({"a": A + 1, "b": B}), cache.put({"b": B * 2})
    assert got(second) == {"a": [[1, 2, 3], [4, 5, 6]], "b": [7, -8]}
    assert got(third) == {"b": [14, -16]}
    assert got(first) == {"a": [[0, 1, 2], [3, 4, 5]]}
    assert second is not None
    assert not second()["a"].flags.owndata
    assert not second()["a"].flags.writeable
    assert second()["a"].dtype == np.float32


def test_the_spill_file_is_unlinked(temporary: Path) -> None:
    cache = ArrayCache(0)
    kept = cache.put({"a": A})
    assert list(temporary.iterdir()) == []
    assert got(kept) == {"a": A.tolist()}


def test_scalars_empty_arrays_and_views_with_gaps_survive_the_file(temporary: Path) -> None:
    arrays = {"s": np.array(3.5, np.float32), "e": np.empty((0, 8), np.float32), "t": A.T}
    kept = ArrayCache(0).put(arrays)
    assert kept is not None
    read = kept()
    assert {name: array.shape for name, array in read.items()} == {"s": (), "e": (0, 8), "t": (3, 2)}
    assert read["s"] == 3.5
    assert read["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_the_file_uses_at_most_half_of_the_free_space_and_warns_once(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = collections.namedtuple("usage", "total used free")
    # 48 are free, as if what is written were counted: the first 24 may go, the next may not.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 52, 48))
    cache = ArrayCache(0)
    first = cache.put({"a": A})
    assert first is not None
    caplog.set_level(logging.WARNING, "ristretto")
    assert cache.put({"a": A}) is None
    assert cache.put({"a": A}) is None
    assert got(first) == {"a": A.tolist()}
    assert caplog.messages == [
        f"{temporary} has no space for the cache (half of the free space is in use): data are read again for each net."
    ]


def test_a_disk_that_is_full_is_no_error(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def seek(self, place: int) -> None: ...
        def close(self) -> None: ...

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **settings: Full())
    cache = ArrayCache(0)
    assert cache.put({"a": A}) is None
    assert cache.full
    assert caplog.messages == [
        f"{temporary} has no space for the cache (No space left on device): data are read again for each net."
    ]


def test_without_any_folder_for_temporary_files_it_is_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """tempfile finds none where all of them, and the current folder, are on full disks."""

    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "gettempdir", fail)
    cache = ArrayCache(0)
    with caplog.at_level(logging.WARNING, "ristretto"):
        assert cache.put({"a": A}) is None
    assert cache.full
    assert caplog.messages == [
        "The folder for temporary files has no space for the cache (No usable temporary directory found): "
        "data are read again for each net."
    ]
