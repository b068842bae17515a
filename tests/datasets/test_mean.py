"""Mean images of databases."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import message_class, new
from ristretto_cli.caffe_io.weights import read_blob
from ristretto_cli.datasets.datum import encoded_datum, float_datum, plain_datum
from ristretto_cli.datasets.mean import MeanImage, mean_of_database, write_mean
from ristretto_cli.datasets.new_database import Backend, new_database
from ristretto_cli.errors import RistrettoError

from .conftest import backend_or_skip

Make = Callable[..., None]


@pytest.fixture
def make(here: Path) -> Make:
    """Writes a database `db` of these records."""

    def write(*values: bytes, backend: Backend = Backend.LMDB) -> None:
        with new_database("db", backend) as database:
            for i, value in enumerate(values):
                database.put(b"%d" % i, value)

    return write


def mean(backend: Backend = Backend.LMDB) -> Any:
    return mean_of_database("db", backend).image.tolist()


@pytest.mark.parametrize("name", ["lmdb", "leveldb"])
def test_the_mean_is_that_of_each_pixel(make: Make, name: str) -> None:
    backend = backend_or_skip(name)
    make(plain_datum(bytes([0, 255]), (2, 1, 1), 0), plain_datum(bytes([1, 255]), (2, 1, 1), 0), backend=backend)
    assert mean(backend) == [[[0.5]], [[255.0]]]


def test_encoded_images_and_floats_count_as_well(make: Make) -> None:
    png = cv2.imencode(".png", np.full((1, 2), 4, np.uint8))[1].tobytes()
    make(encoded_datum(png, 0), float_datum(np.array([[[1, -1]]], np.float32)))
    assert mean() == [[[2.5, 1.5]]]


def test_the_sum_is_in_float32_as_in_caffe(make: Make) -> None:
    # 2**24 + 1 is not in float32, so that each 1 is lost on the way; in another precision the mean would be larger.
    make(*(float_datum(np.array([[[value]]], np.float32)) for value in (2**24, 1, 1, 1)))
    assert mean() == [[[2**22]]]


def test_channels_are_added_up_in_float32_one_value_after_the_other() -> None:
    values = np.array([2**24, 1, 1, 1], np.float32)
    assert MeanImage(np.stack([values, np.ones(4, np.float32)]).reshape(2, 2, 2)).channels == [2**22, 1]


def test_a_mean_file_has_the_old_shape_fields(here: Path) -> None:
    write_mean("mean.binaryproto", MeanImage(np.array([[[1, 2, 3]], [[4, 5, 6.5]]], np.float32)))
    message = message_class("BlobProto").FromString(Path("mean.binaryproto").read_bytes())
    assert message == new("BlobProto", num=1, channels=2, height=1, width=3, data=[1, 2, 3, 4, 5, 6.5])
    assert read_blob("mean.binaryproto").shape == (1, 2, 1, 3)


def test_the_log_is_caffes(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    png = cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()
    make(*[encoded_datum(png, 0)] * 10001)
    caplog.clear()
    with caplog.at_level(logging.INFO, "ristretto"):
        write_mean("m", mean_of_database("db", Backend.LMDB))
    assert caplog.messages == [
        "Opened lmdb db",
        "Decoding Datum",
        "Starting iteration",
        "Processed 10000 files.",
        "Processed 10001 files.",
        "Write to m",
    ]


GOOD = plain_datum(bytes(6), (1, 2, 3), 0)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            plain_datum(bytes(6), (1, 3, 2), 0),
            "the image is 1x3x2, but the first one is 1x2x3. Resize all images to the same size.",
        ),
        (plain_datum(bytes(5), (1, 2, 3), 0), "the record has 5 values for an image of 1x2x3"),
        (plain_datum(b"", (1, 2, 3), 0), "the record has 0 values for an image of 1x2x3"),
        (
            plain_datum(bytes(6), (2**31 - 1,) * 3, 0),
            "the record has 6 values for an image of 2147483647x2147483647x2147483647",
        ),
        (plain_datum(bytes(6), (-1, -2, 3), 0), "the record has 6 values for an image of -1x-2x3"),
        (encoded_datum(b"no image", 0), "the image cannot be decoded"),
        (b"\xff\xff", "the record is not a valid Datum message"),
    ],
)
def test_a_bad_record_is_reported_by_its_key(make: Make, record: bytes, line: str) -> None:
    make(GOOD, record)
    with pytest.raises(RistrettoError) as caught:
        mean()
    assert str(caught.value) == f'db: key "1": {line}'


def test_an_empty_database_is_refused(make: Make) -> None:
    make()
    with pytest.raises(RistrettoError, match=r"^db: the database is empty$"):
        mean()


@pytest.mark.parametrize(
    ("given", "reported", "line"),
    [
        ("lmdb", "leveldb", "db: is an LMDB database. Use --backend=lmdb."),
        ("leveldb", "lmdb", "db: is a LevelDB database. Use --backend=leveldb."),
    ],
)
def test_the_other_backend_is_named(make: Make, given: str, reported: str, line: str) -> None:
    make(GOOD, backend=backend_or_skip(given))
    with pytest.raises(RistrettoError) as caught:
        mean(Backend(reported))
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("gone", "gone: this database does not exist. Use the folder of the database."),
        ("file", "file: is not a folder. Use the folder of the database."),
        ("folder", "folder is not an LMDB database: no data.mdb in it"),
        ("n" * 300, f"{'n' * 300!r}: invalid folder name"),
    ],
)
def test_what_is_no_database_is_refused(here: Path, path: str, line: str) -> None:
    Path("file").touch()
    Path("folder").mkdir()
    with pytest.raises(RistrettoError) as caught:
        mean_of_database(path, Backend.LMDB)
    assert str(caught.value) == line
