from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError

TEXT = 'type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: %s }'


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Writes HDF5 files of the rows first...last and their list; data is (rows, 2), label is the row."""

    def write(**rows: tuple[int, int]) -> None:
        for name, (first, last) in rows.items():
            labels = np.arange(first, last + 1)
            with h5py.File(tmp_path / f"{name}.h5", "w") as h5:
                h5["data"] = np.stack([labels / 2, labels + 100.0], axis=1)
                h5["label"] = labels
        (tmp_path / "list.txt").write_text("\n".join(f"{name}.h5" for name in rows))

    return write


def labels(source: Any, turns: int) -> list[list[float]]:
    out = []
    for _ in range(turns):
        data, label = source.next()
        assert data.dtype == label.dtype == np.float32
        np.testing.assert_array_equal(data, np.stack([label / 2, label + 100], axis=1))
        out.append(label.tolist())
    return out


def test_a_batch_spans_files_and_starts_again_at_the_end(files: Any, open_layer: Any) -> None:
    files(a=(0, 2), b=(3, 4))
    source = open_layer(TEXT % 4)
    assert source.shapes == ((4, 2), (4,))
    assert labels(source, 3) == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]


def test_a_batch_may_be_larger_than_the_file(files: Any, open_layer: Any) -> None:
    files(a=(0, 1))
    assert labels(open_layer(TEXT % 5), 2) == [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]


def test_shuffle_mixes_files_and_the_rows_within_each(files: Any, open_layer: Any) -> None:
    files(a=(0, 9), b=(10, 19), c=(20, 29))
    text = (TEXT % 30).replace("batch_size", "shuffle: true batch_size")
    first, second = labels(open_layer(text, seed=1), 2)
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
    for turn in (first, second):
        for part in (turn[:10], turn[10:20], turn[20:]):
            assert len({row // 10 for row in part}) == 1
            assert part != sorted(part)
    orders = {tuple(labels(open_layer(text, seed=s), 1)[0][::10]) for s in range(20)}
    assert len({tuple(row // 10 for row in order) for order in orders}) > 2
    assert labels(open_layer(text, seed=1), 2) == [first, second]


def test_one_file_is_shuffled_again_in_each_turn(files: Any, open_layer: Any) -> None:
    files(a=(0, 9))
    text = (TEXT % 10).replace("batch_size", "shuffle: true batch_size")
    first, second = labels(open_layer(text), 2)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def change(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "a") as h5:
        del h5[name]
        if value is not None:
            h5[name] = value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, 'a.h5 has no dataset "label". Its datasets: data.'),
        (np.array([b"x", b"y"]), "a.h5: dataset label contains |S1, not numbers"),
        (np.zeros(3), "a.h5: label has 3 rows, but data has 2"),
        (np.zeros((0, 2)), "a.h5: dataset label has the shape 0x2"),
        (np.float32(1), "a.h5: dataset label has the shape scalar"),
    ],
)
def test_bad_datasets_are_reported_in_a_line(
    value: Any, says: str, files: Any, open_layer: Any, tmp_path: Path
) -> None:
    files(a=(0, 1))
    change(tmp_path / "a.h5", "label", value)
    with pytest.raises(RistrettoError) as caught:
        open_layer(TEXT % 1)
    assert str(caught.value) == says


def test_rows_of_another_shape_in_a_later_file_are_refused(files: Any, open_layer: Any, tmp_path: Path) -> None:
    files(a=(0, 1), b=(2, 3))
    change(tmp_path / "b.h5", "data", np.zeros((2, 3)))
    source = open_layer(TEXT % 2)
    source.next()
    with pytest.raises(RistrettoError, match=r"^b.h5: rows of data are 3, but 2 in the first file$"):
        source.next()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT % 0, "hdf5_data_param.batch_size is 0. Set it to 1 or more."),
        (TEXT % 1 + " transform_param { scale: 2 }", "HDF5Data layers do not transform data. Remove "),
        ((TEXT % 1).replace("list.txt", "none.txt"), "hdf5_data_param.source none.txt does not exist. "),
        ((TEXT % 1).replace("list.txt", "empty.txt"), "hdf5_data_param.source empty.txt lists no files"),
        ((TEXT % 1).replace("list.txt", "gone.txt"), "gone.txt: the file gone.h5 does not exist. Relative "),
        ((TEXT % 1).replace("list.txt", "text.txt"), "text.txt is not an HDF5 file: "),
        ('type: "HDF5Data"', "expected 1 or more tops, got 0"),
    ],
)
def test_bad_settings_are_reported_in_a_line(text: str, says: str, files: Any, open_layer: Any, tmp_path: Path) -> None:
    files(a=(0, 1))
    for name, content in (("empty", " \n"), ("gone", "gone.h5"), ("text", "text.txt")):
        (tmp_path / f"{name}.txt").write_text(content)
    with pytest.raises(RistrettoError) as caught:
        open_layer(text)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
