"""Data: Datum records from LMDB or LevelDB."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import AnyArray, Array, Shape, show
from ristretto_cli.sources.database import Database, LevelDb, Lmdb, Record, endless
from ristretto_cli.sources.decoding import Workers
from ristretto_cli.sources.images import decode, planes
from ristretto_cli.sources.settings import (
    batch_size_of,
    check_tops,
    checked_shape,
    existing,
    warn_ignored,
)
from ristretto_cli.sources.source import Source, source
from ristretto_cli.sources.transform import Transform
from ristretto_cli.wire.messages import Message, enum_name, message_class


@source("Data")
class Data(Source):
    """Images (N, C, H, W) and, with a second top, labels (N,); a record without a label has label 0.

    The first record gives the shape. With batch_size 1 a later record may have another one, and `next` then
    gives that shape, as in Caffe; otherwise it is refused, by its key.
    """

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 1, 2)
        param = message.data_param
        warn_ignored(param, "data_param")
        self._batch = batch_size_of(param, "data_param")
        self._labels = len(message.top) == 2
        self._path = existing(param.source, "data_param.source")
        rng = np.random.default_rng(seed)
        self._transform = Transform(message.transform_param, phase, rng)
        self._parse = message_class("Datum").FromString
        self._workers = Workers()
        self._database = _open(self._path, enum_name(param, "backend"))
        try:
            self._shape, shape = self._first_shapes()
            batch = checked_shape((self._batch, *shape), "the batch")
            self.shapes = (batch, (self._batch,)) if self._labels else (batch,)
        except Exception:
            self.close()
            raise
        # rand_skip is not looked at: Caffe's own Data layer has not done so since it reads ahead.
        self._records = endless(self._database)

    def next(self) -> tuple[Array, ...]:
        records = list(islice(self._records, self._batch))
        datums = self._parsed(records)
        images = self._raw_batch(datums)
        if images is None:
            images = self._any_batch(records, datums)
        out = self._transform(images)
        return (out, np.array([datum.label for datum in datums], np.float32)) if self._labels else (out,)

    def close(self) -> None:
        self._workers.close()
        self._records = iter(())
        self._database.close()

    def _first_shapes(self) -> tuple[Shape, Shape]:
        """The shapes of the first image, before and behind the transform."""
        records = list(islice(self._database.records(), 1))
        if not records:
            raise LayerError(f"the database {self._path} is empty")
        shape = self._image((records[0], self._parsed(records)[0])).shape
        return shape, self._transform.shape(shape)

    def _parsed(self, records: Sequence[Record]) -> list[Message]:
        try:
            return [self._parse(value) for _, value in records]
        except DecodeError:
            for record in records:
                self._parse_one(record)
            raise

    def _parse_one(self, record: Record) -> None:
        try:
            self._parse(record[1])
        except DecodeError:
            raise RistrettoError("the record is no Datum message", where=self._where(record)) from None

    def _raw_batch(self, datums: Sequence[Message]) -> AnyArray | None:
        """All images at once, where they are plain bytes of the expected shape; else None."""
        if any(d.encoded or (d.channels, d.height, d.width) != self._shape for d in datums):
            return None
        data = [d.data for d in datums]
        size = int(np.prod(self._shape))
        if any(len(bytes_) != size for bytes_ in data):
            return None
        return np.frombuffer(b"".join(data), np.uint8).reshape(len(datums), *self._shape)

    def _any_batch(self, records: Sequence[Record], datums: Sequence[Message]) -> AnyArray:
        """All images, one by one."""
        pairs = list(zip(records, datums, strict=True))
        encoded = any(datum.encoded for datum in datums)
        images = self._workers.map(self._image, pairs) if encoded else [self._image(pair) for pair in pairs]
        if self._batch == 1:
            self._transform.check(images[0].shape, self._where(records[0]))
            return np.stack(images)
        for record, image in zip(records, images, strict=True):
            if image.shape != self._shape:
                raise RistrettoError(
                    f"the image is {show(image.shape)}, the first one {show(self._shape)}",
                    where=self._where(record),
                    remedy="Bring all images to one size.",
                )
        return np.stack(images)

    def _image(self, pair: tuple[Record, Message]) -> AnyArray:
        """One record's image, (C, H, W)."""
        record, datum = pair
        if datum.encoded:
            return planes(decode(datum.data, self._transform.decode_flag, self._where(record)))
        shape = (datum.channels, datum.height, datum.width)
        values: AnyArray = np.frombuffer(datum.data, np.uint8)
        if not len(values):
            values = np.array(datum.float_data, np.float32)
        if min(shape) < 1 or len(values) != shape[0] * shape[1] * shape[2]:
            what = f"the record has {len(values)} values for an image of {show(shape)}"
            raise RistrettoError(what, where=self._where(record))
        return values.reshape(shape)

    def _where(self, record: Record) -> str:
        return f'{self._path}: key "{record[0].decode(errors="backslashreplace")}"'


def _open(path: Path, backend: str) -> Database:
    if not path.is_dir():
        raise LayerError(f"data_param.source {path} is not a folder", remedy="Name the database's folder.")
    if backend == "LMDB":
        if (path / "CURRENT").is_file() and not (path / "data.mdb").exists():
            raise LayerError(f"{path} is a LevelDB database, not LMDB", remedy="Set backend: LEVELDB.")
        return Lmdb(path)
    if (path / "data.mdb").is_file():
        raise LayerError(f"{path} is an LMDB database, not LevelDB", remedy="Set backend: LMDB.")
    return LevelDb(path)
