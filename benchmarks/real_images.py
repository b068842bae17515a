"""Images that nets were trained for, out of the folder of shared data, as databases."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from ristretto_cli.datasets.datum import plain_datum
from ristretto_cli.datasets.new_database import Backend, new_database
from ristretto_cli.errors import RistrettoError

_DEFAULT_SHARED = Path(__file__).resolve().parents[2] / "shared"
_CIFAR10 = ("cifar10_train10k_lmdb", "cifar10_test_lmdb")
_CIFAR10_TEST_IMAGES = 10_000


@dataclass(frozen=True)
class RealImages:
    """Databases to calibrate with and to score with; test_images: how many the second one has. mean: a mean file."""

    train: Path
    test: Path
    test_images: int
    mean: Path | None = None


def shared_data() -> Path:
    """The folder of shared data, which need not be there."""
    return Path(os.environ.get("RISTRETTO_SHARED", _DEFAULT_SHARED)) / "data"


def real_images(image: tuple[int, int, int], calibration: int, folder: Path) -> RealImages | None:
    """Databases of records of shape (C, H, W), written into a folder; None where there are no such images.

    calibration: the number of images to calibrate with; no image is in both databases.
    """
    if image == (3, 32, 32):
        return _cifar10(folder)
    if image == (3, 256, 256):
        return _imagenet(calibration, folder)
    return None


def _cifar10(folder: Path) -> RealImages | None:
    source = shared_data() / "cifar10"
    archives = [source / f"{name}.tar.xz" for name in _CIFAR10]
    if not all(archive.is_file() for archive in archives):
        return None
    for archive in archives:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    train, test = (folder / name for name in _CIFAR10)
    return RealImages(train, test, _CIFAR10_TEST_IMAGES, source / "mean.binaryproto")


def _imagenet(calibration: int, folder: Path) -> RealImages | None:
    source = shared_data() / "imagenet"
    if not (source / "val.txt").is_file():
        return None
    listed = [line.split() for line in (source / "val.txt").read_text().splitlines()]
    if len(listed) <= calibration:
        return None
    train, test = folder / "imagenet_train_lmdb", folder / "imagenet_test_lmdb"
    _write(train, source / "images", listed[:calibration])
    _write(test, source / "images", listed[calibration:])
    return RealImages(train, test, len(listed) - calibration)


def _write(database: Path, folder: Path, listed: Sequence[Sequence[str]]) -> None:
    """Write images of a list of files and labels, as they are stored, in the order that Caffe's tools write."""
    with new_database(str(database), Backend.LMDB) as written:
        for i, (file, label) in enumerate(listed):
            pixels = cv2.imread(str(folder / file), cv2.IMREAD_COLOR)
            if pixels is None:
                raise RistrettoError("the image cannot be read", where=str(folder / file))
            planes = pixels.transpose(2, 0, 1)
            written.put(b"%08d" % i, plain_datum(planes.tobytes(), planes.shape, int(label)))
