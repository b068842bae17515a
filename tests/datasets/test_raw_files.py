"""The files of MNIST and CIFAR-10 to databases."""

from __future__ import annotations

import gzip
import logging
import struct
import tracemalloc
from pathlib import Path

import pytest

from ristretto_cli.datasets.cifar import convert_cifar
from ristretto_cli.datasets.mnist import convert_mnist
from ristretto_cli.datasets.new_database import Backend
from ristretto_cli.errors import RistrettoError

from .conftest import backend_or_skip, datums, records

# --- MNIST


def idx(magic: int, *extents: int, data: bytes) -> bytes:
    return struct.pack(f">{1 + len(extents)}I", magic, *extents) + data


IMAGES = idx(2051, 2, 2, 3, data=bytes(range(12)))
LABELS = idx(2049, 2, data=bytes([9, 0]))


@pytest.fixture
def mnist(here: Path) -> Path:
    Path("images").write_bytes(IMAGES)
    Path("labels").write_bytes(LABELS)
    return here


def convert(backend: Backend = Backend.LMDB) -> int:
    return convert_mnist("images", "labels", "db", backend)


def test_an_mnist_record_is_written_as_caffe_writes_it(mnist: Path) -> None:
    assert convert() == 2
    # channels 1, height 2, width 3, data of 6 bytes, label
    head = bytes([0x08, 1, 0x10, 2, 0x18, 3, 0x22, 6])
    assert records("db") == {
        "00000000": head + bytes([0, 1, 2, 3, 4, 5, 0x28, 9]),
        "00000001": head + bytes([6, 7, 8, 9, 10, 11, 0x28, 0]),
    }


def test_mnist_goes_into_leveldb_too(mnist: Path) -> None:
    backend = backend_or_skip("leveldb")
    convert(backend)
    assert [datum.label for datum in datums("db", backend).values()] == [9, 0]


def test_labels_are_bytes_without_a_sign(mnist: Path) -> None:
    Path("labels").write_bytes(idx(2049, 2, data=bytes([127, 255])))
    convert()
    assert [datum.label for datum in datums("db").values()] == [127, 255]


def test_the_log_of_mnist_is_caffes(mnist: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ristretto"):
        convert()
    assert caplog.messages == ["Opened lmdb db", "A total of 2 items.", "Rows: 2 Cols: 3", "Processed 2 files."]


MAGIC_REMEDY = "The image file comes first, then the label file; both in idx format."
BIG = 2**32 - 1


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (LABELS, LABELS, f"images: Incorrect image file magic. {MAGIC_REMEDY}"),
        (IMAGES, IMAGES, f"labels: Incorrect label file magic. {MAGIC_REMEDY}"),
        (b"", LABELS, f"images: Incorrect image file magic. {MAGIC_REMEDY}"),
        (IMAGES[:15], LABELS, f"images: Incorrect image file magic. {MAGIC_REMEDY}"),
        (gzip.compress(IMAGES, mtime=0), LABELS, "images: the file is compressed. Unpack it first, with gunzip."),
        (
            IMAGES[:-1],
            LABELS,
            "images: its header declares 2x2x3, which needs 28 bytes, but the file has 27. Download the file again.",
        ),
        (
            IMAGES,
            LABELS + b"!",
            "labels: its header declares 2, which needs 10 bytes, but the file has 11. Download the file again.",
        ),
        (
            idx(2051, BIG, BIG, BIG, data=b""),
            LABELS,
            f"images: its header declares {BIG}x{BIG}x{BIG}, which needs {BIG**3 + 16} bytes, "
            "but the file has 16. Download the file again.",
        ),
        (idx(2051, 1, 2, 3, data=bytes(6)), LABELS, "images has 1 images, but labels has 2 labels"),
        (idx(2051, 0, 2, 3, data=b""), idx(2049, 0, data=b""), "images: 0 images of 2x3 are empty"),
        (idx(2051, 2, 0, 3, data=b""), LABELS, "images: 2 images of 0x3 are empty"),
        (idx(2051, 2, BIG, 0, data=b""), LABELS, f"images: 2 images of {BIG}x0 are empty"),
    ],
)
def test_idx_files_that_lie_are_refused_and_take_no_memory(
    mnist: Path, images: bytes, labels: bytes, line: str
) -> None:
    Path("images").write_bytes(images)
    Path("labels").write_bytes(labels)
    tracemalloc.start()
    try:
        with pytest.raises(RistrettoError) as caught:
            convert()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert str(caught.value) == line
    assert sorted(path.name for path in mnist.iterdir()) == ["images", "labels"]


def test_a_missing_idx_file_is_reported(here: Path) -> None:
    with pytest.raises(RistrettoError, match=r"^images: this file does not exist$"):
        convert()


# --- CIFAR-10, of batches of two images

FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


@pytest.fixture
def cifar(here: Path) -> Path:
    """In the n-th file the labels are n and n + 1, and so are all pixels of the first plane; the others are 0."""
    (here / "in").mkdir()
    (here / "out").mkdir()
    for number, name in enumerate(FILES):
        images = [bytes([label]) + bytes([label]) * 1024 + bytes(2048) for label in (number, number + 1)]
        (here / "in" / name).write_bytes(b"".join(images))
    return here


@pytest.mark.parametrize("name", ["lmdb", "leveldb"])
def test_cifar_becomes_two_databases(cifar: Path, name: str) -> None:
    backend = backend_or_skip(name)
    train, test = f"out/cifar10_train_{name}", f"out/cifar10_test_{name}"
    assert convert_cifar("in", "out", backend, images_per_file=2) == {train: 10, test: 2}
    found = datums(train, backend)
    assert list(found) == [f"{i:05d}" for i in range(10)]
    assert [datum.label for datum in found.values()] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert [datum.data[0] for datum in found.values()] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    # channels 3, height 32, width 32, data of 3072 bytes; after it only the label
    value = records(test, backend)["00001"]
    assert value[:9] == bytes([0x08, 3, 0x10, 32, 0x18, 32, 0x22, 0x80, 0x18])
    assert value[9:] == bytes([6] * 1024 + [0] * 2048 + [0x28, 6])


def test_the_log_of_cifar_is_caffes(cifar: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ristretto"):
        convert_cifar("in", "out", Backend.LMDB, images_per_file=2)
    expected = ["Writing Training data", *(f"Training Batch {i}" for i in range(1, 6)), "Writing Testing data"]
    assert [message for message in caplog.messages if not message.startswith("Opened")] == expected


def test_every_batch_that_is_missing_or_of_another_size_is_reported(cifar: Path) -> None:
    Path("in/data_batch_2.bin").unlink()
    Path("in/test_batch.bin").write_bytes(bytes(6145))
    with pytest.raises(RistrettoError) as caught:
        convert_cifar("in", "out", Backend.LMDB, images_per_file=2)
    assert str(caught.value).splitlines() == [
        "in/data_batch_2.bin: this file does not exist",
        "in/test_batch.bin: the file has 6145 bytes; a batch of 2 images has 6146. "
        "Download the binary version of CIFAR-10, and unpack it.",
    ]
    assert list(Path("out").iterdir()) == []


def test_neither_database_is_written_where_one_exists(cifar: Path) -> None:
    Path("out/cifar10_test_lmdb").mkdir()
    with pytest.raises(RistrettoError, match=r"^out/cifar10_test_lmdb: already exists\."):
        convert_cifar("in", "out", Backend.LMDB, images_per_file=2)
    assert [path.name for path in Path("out").iterdir()] == ["cifar10_test_lmdb"]
