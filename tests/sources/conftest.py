"""Small databases and layers for the tests of data sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, new
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.sources.open import open_source
from ristretto_cli.sources.source import Source


def layer(text: str) -> Any:
    return parse(text, "LayerParameter", "layer.prototxt").message


def datum(image: Any, label: int | None = None) -> bytes:
    """A raw record of an image (C, H, W)."""
    image = np.asarray(image)
    channels, height, width = image.shape
    message = new("Datum", channels=channels, height=height, width=width)
    if image.dtype == np.float32:
        message.float_data.extend(image.ravel().tolist())
    else:
        message.data = image.astype(np.uint8).tobytes()
    if label is not None:
        message.label = label
    return bytes(message.SerializeToString())


def encoded(image: Any, label: int = 0) -> bytes:
    """A PNG record of an image (H, W) or (H, W, C)."""
    png = cv2.imencode(".png", np.asarray(image))[1].tobytes()
    return bytes(new("Datum", data=png, encoded=True, label=label).SerializeToString())


def mean_file(path: Path, mean: Any) -> Path:
    mean = np.asarray(mean, np.float32)
    channels, height, width = mean.shape
    message = new("BlobProto", num=1, channels=channels, height=height, width=width)
    message.data.extend(mean.ravel().tolist())
    path.write_bytes(message.SerializeToString())
    return path


def write_lmdb(folder: Path, records: Mapping[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    with (
        lmdb.open(str(folder), map_size=1 << 22) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in records.items():
            transaction.put(key.encode(), value)
    (folder / "lock.mdb").unlink()
    return folder


Opener = Callable[..., Source]


@pytest.fixture
def open_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Opener]:
    """Opens a layer from its text, with tmp_path as the current folder; closes it after the test."""
    monkeypatch.chdir(tmp_path)
    opened: list[Source] = []

    def open_it(text: str, phase: int = TEST, *, seed: int = 0) -> Source:
        opened.append(open_source(layer(text), phase, seed=seed))
        return opened[-1]

    yield open_it
    for source in opened:
        source.close()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Writes the records of an LMDB into tmp_path/db."""
    return lambda records: write_lmdb(tmp_path / "db", records)
