"""The mean image of a database, for `ristretto compute_image_mean`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.caffe_io.messages import message_class, new
from ristretto_cli.datasets.new_database import Backend
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import AnyArray, Array, show
from ristretto_cli.sources.database import Database, LevelDb, Lmdb
from ristretto_cli.sources.images import NATIVE, decode, planes

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class MeanImage:
    """The mean of images, (C, H, W) in float32."""

    image: Array

    @property
    def channels(self) -> list[float]:
        """The mean of each channel, summed in Caffe's order and precision."""
        flat = self.image.reshape(len(self.image), -1)
        # accumulate adds sequentially, whereas sum() would add pairwise.
        totals = np.add.accumulate(flat, axis=1, dtype=np.float32)[:, -1]
        return [float(mean) for mean in totals / np.float32(flat.shape[1])]


def mean_of_database(path: str, backend: Backend) -> MeanImage:
    """The mean of all images of a database, summed in float32 as in Caffe, and bit-identical to Caffe's.

    RistrettoError for a database that cannot be read or is empty, and, with its key, for a record that is not an
    image or differs in size from the first.
    """
    database = _open(path, backend)
    log.info("Opened %s %s", backend.value, path)
    total: Array | None = None
    count = 0
    try:
        for key, image in _images(database, path):
            if total is None:
                log.info("Starting iteration")
                total = np.zeros(image.shape, np.float32)
            if image.shape != total.shape:
                what = f"the image is {show(image.shape)}, but the first one is {show(total.shape)}"
                raise RistrettoError(what, where=_where(path, key), hint="Resize all images to the same size.")
            total += image
            count += 1
            if count % 10000 == 0:
                log.info("Processed %d files.", count)
    finally:
        database.close()
    if total is None:
        raise RistrettoError("the database is empty", where=path)
    if count % 10000:
        log.info("Processed %d files.", count)
    return MeanImage(total / np.float32(count))


def write_mean(path: str | Path, mean: MeanImage) -> None:
    """Write a mean file: a BlobProto with the old form of shape: num, channels, height and width."""
    log.info("Write to %s", path)
    channels, height, width = mean.image.shape
    message = new("BlobProto", num=1, channels=channels, height=height, width=width)
    message.data.extend(mean.image.ravel().tolist())
    write_atomically(path, message.SerializeToString())


def _images(database: Database, path: str) -> Iterator[tuple[bytes, AnyArray]]:
    """Each record's key and image, (C, H, W)."""
    parse = message_class("Datum").FromString
    for at, record in enumerate(database.records()):
        try:
            datum = parse(record[1])
        except DecodeError:
            raise RistrettoError("the record is not a valid Datum message", where=_where(path, record[0])) from None
        if datum.encoded:
            if at == 0:
                log.info("Decoding Datum")
            yield record[0], planes(decode(datum.data, NATIVE, _where(path, record[0])))
            continue
        shape = (datum.channels, datum.height, datum.width)
        values: AnyArray = np.frombuffer(datum.data, np.uint8)
        if not len(values):
            values = np.array(datum.float_data, np.float32)
        if min(shape) < 1 or len(values) != shape[0] * shape[1] * shape[2]:
            what = f"the record has {len(values)} values for an image of {show(shape)}"
            raise RistrettoError(what, where=_where(path, record[0]))
        yield record[0], values.reshape(shape)


def _where(path: str, key: bytes) -> str:
    return f'{path}: key "{key.decode(errors="backslashreplace")}"'


def _open(path: str, backend: Backend) -> Database:
    try:
        if not Path(path).is_dir():
            what = "is not a folder" if Path(path).exists() else "this database does not exist"
            raise RistrettoError(what, where=path or '""', hint="Use the folder of the database.")
    except (ValueError, OSError):
        raise RistrettoError("invalid folder name", where=repr(path)) from None
    folder = Path(path)
    is_lmdb, is_leveldb = (folder / "data.mdb").exists(), (folder / "CURRENT").is_file()
    if backend is Backend.LMDB:
        if is_leveldb and not is_lmdb:
            raise RistrettoError("is a LevelDB database", where=path, hint="Use --backend=leveldb.")
        return Lmdb(folder)
    if is_lmdb and not is_leveldb:
        raise RistrettoError("is an LMDB database", where=path, hint="Use --backend=lmdb.")
    return LevelDb(folder)
