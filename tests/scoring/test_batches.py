"""Batches that are read once and used for any number of nets."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from ristretto_cli.scoring.array_cache import ArrayCache, CachedArrays
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.data_loader import DataLoader

from ..conftest import DETECTOR, FINDS_BRIGHT

DATA = """
    layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: 2 } }
    layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" }
"""


class Reads:
    """Counts the batches that are read from the files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        inner = DataLoader.next

        def counted(feeds: DataLoader) -> Any:
            self.count += 1
            return inner(feeds)

        monkeypatch.setattr(DataLoader, "next", counted)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def net(workshop: Any) -> Any:
    workshop.database("db", np.array([10, 20, 30, 40, 50], np.uint8).reshape(5, 1, 1, 1), [0, 1, 2, 3, 4])
    return workshop.load(DATA)


def read(batches: CachedBatches, count: int) -> list[list[float]]:
    """The pixels of the first batches."""
    with batches.reader() as reader:
        return [reader.next()["data"].ravel().tolist() for _ in range(count)]


THREE = [[10, 20], [30, 40], [50, 10]]


@pytest.mark.parametrize("budget", [1 << 20, 16, 0], ids=["in memory", "the first in memory", "in the file"])
def test_batches_are_read_once(workshop: Any, reads: Reads, budget: int) -> None:
    batches = CachedBatches(net(workshop), ArrayCache(budget))
    assert [read(batches, 3) for _ in range(3)] == [THREE] * 3
    assert reads.count == 3


def test_without_a_cache_each_pass_reads_the_files(workshop: Any, reads: Reads) -> None:
    batches = CachedBatches(net(workshop))
    assert [read(batches, 3) for _ in range(2)] == [THREE] * 2
    assert reads.count == 6


def test_a_longer_pass_continues_after_the_cached_batches(workshop: Any, reads: Reads) -> None:
    batches = CachedBatches(net(workshop), ArrayCache(1 << 20))
    assert read(batches, 1) == THREE[:1]
    assert read(batches, 3) == THREE
    reads.count = 0
    assert read(batches, 3) == THREE
    assert reads.count == 0


def test_cached_batches_outlive_the_files(workshop: Any) -> None:
    batches = CachedBatches(net(workshop), ArrayCache(0))
    read(batches, 3)
    shutil.rmtree("db")
    assert read(batches, 3) == THREE


def test_with_a_full_disk_each_pass_reads_them_from_the_first_one_on(
    workshop: Any, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ArrayCache(16)  # the first batch: two pixels and two labels

    def full(folder: str) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(shutil, "disk_usage", full)
    batches = CachedBatches(net(workshop), cache)
    assert [read(batches, 3) for _ in range(2)] == [THREE] * 2
    assert cache.full
    assert reads.count == 6
    assert batches.cached(0) is None


def test_batches_with_variable_extents_are_cached(bright_halves: Any) -> None:
    detector = bright_halves.load(DETECTOR, FINDS_BRIGHT)
    batches = CachedBatches(detector, ArrayCache(0))
    labels = []
    for _ in range(2):
        with batches.reader() as reader:
            labels.append([reader.next()["label"] for _ in range(2)])
    # two objects in the first two images, one in the others
    assert [[array.shape for array in pair] for pair in labels] == [[(1, 1, 2, 8), (1, 1, 1, 8)]] * 2
    assert all(np.array_equal(a, b) for a, b in zip(*labels, strict=True))


def test_a_reader_can_select_inputs_and_add_extra_arrays(workshop: Any) -> None:
    batches = CachedBatches(net(workshop), ArrayCache(1 << 20))
    extra: list[CachedArrays] = [lambda: {"more": np.array([1.5])}, lambda: {"more": np.array([2.5])}]
    with batches.reader(frozenset({"label"}), extra) as reader:
        found = [{name: array.tolist() for name, array in reader.next().items()} for _ in range(2)]
    assert found == [{"label": [0, 1], "more": [1.5]}, {"label": [2, 3], "more": [2.5]}]
