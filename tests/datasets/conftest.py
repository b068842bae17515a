"""Small images, lists and databases for the tests of the data tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import message_class
from ristretto_cli.datasets.new_database import Backend
from ristretto_cli.sources.database import LevelDb, Lmdb


def records(path: str | Path, backend: Backend = Backend.LMDB) -> dict[str, bytes]:
    """The values of a database by their keys."""
    database = Lmdb(Path(path)) if backend is Backend.LMDB else LevelDb(Path(path))
    try:
        return {key.decode(): value for key, value in database.records()}
    finally:
        database.close()


def datums(path: str | Path, backend: Backend = Backend.LMDB) -> dict[str, Any]:
    """The Datum messages of a database by their keys."""
    parse = message_class("Datum").FromString
    return {key: parse(value) for key, value in records(path, backend).items()}


def backend_or_skip(name: str) -> Backend:
    if name == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    return Backend(name)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(here: Path) -> Any:
    """Writes images (H, W) or (H, W, 3), by name, into the folder `images`, and `list.txt` with labels 0, 1, ..."""

    def write(images: Mapping[str, Any]) -> None:
        (here / "images").mkdir()
        for name, image in images.items():
            assert cv2.imwrite(str(here / "images" / name), np.asarray(image, np.uint8))
        (here / "list.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(images)))

    return write
