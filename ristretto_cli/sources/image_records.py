"""Image databases: records parsed, decoded and resized, one batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from ristretto_cli.caffe_io.messages import Message, enum_name, message_class
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import AnyArray, Array, Shape, show
from ristretto_cli.sources.annotations import AnnotatedBoxes
from ristretto_cli.sources.database import Database, LevelDb, Lmdb, Record, endless
from ristretto_cli.sources.decoding import Workers
from ristretto_cli.sources.images import decode, planes
from ristretto_cli.sources.settings import batch_size_of, checked_shape, existing, warn_ignored
from ristretto_cli.sources.transform import Draw, ImageBatch, Transform

log = logging.getLogger("ristretto")


class Item(NamedTuple):
    """A record, its message, and the Datum of that: the message itself, or that of an AnnotatedDatum."""

    record: Record
    message: Message
    datum: Message


class Images(NamedTuple):
    """A batch. pixels: resized, (N, C, H, W), or of each image if their sizes differ; extents: each image's height and
    width before that, but after its augmentation; windows: see Augmentation."""

    items: Sequence[Item]
    pixels: ImageBatch
    extents: Sequence[tuple[int, int]]
    windows: Sequence[tuple[Array, ...]]


class _Image(NamedTuple):
    pixels: AnyArray  # (C, H, W)
    extent: tuple[int, int]
    windows: tuple[Array, ...]


class ImageRecords:
    """The images of a DataParameter's database, repeated endlessly.

    The first record, `first`, gives the shape of the first transformed batch, `shape`; later batches may have another
    one. Each image is cropped by its own size; one that then differs from the first one of its batch is an error that
    names its key. annotated: records are AnnotatedDatum, not Datum.
    """

    def __init__(self, param: Message, transform: Transform, *, annotated: bool = False) -> None:
        warn_ignored(param, "data_param")
        self._batch = batch_size_of(param, "data_param")
        self._path = existing(param.source, "data_param.source")
        self._transform = transform
        self._annotated = annotated
        self._name = "AnnotatedDatum" if annotated else "Datum"
        self._parse = message_class(self._name).FromString
        self._workers = Workers()
        log.debug("Opening the database %s", self._path)
        self._database = _open(self._path, enum_name(param, "backend"))
        try:
            self.first = self._first()
            first = self._image((self.first, Draw(transform.draws(1)[0].interpolation)))
            self._shape: Shape = first.pixels.shape
            self.shape = checked_shape((self._batch, *transform.shape(self._shape)), "the batch")
        except Exception:
            self.close()
            raise
        # rand_skip is ignored, as in Caffe's Data layer since it prefetches.
        self._records = endless(self._database)

    def next(self) -> Images:
        """The next batch."""
        items = self._parsed(list(islice(self._records, self._batch)))
        pixels = None if self._transform.augments else self._raw_batch([item.datum for item in items])
        if pixels is not None:
            windows = self._transform.windows
            return Images(items, pixels, [(self._shape[1], self._shape[2])] * len(items), [windows] * len(items))
        return self._any_batch(items)

    def where(self, item: Item) -> str:
        """The record's place, for messages."""
        return f'{self._path}: key "{item.record[0].decode(errors="backslashreplace")}"'

    def close(self) -> None:
        """Close the database."""
        self._workers.close()
        self._records = iter(())
        self._database.close()

    def _first(self) -> Item:
        records = list(islice(self._database.records(), 1))
        if not records:
            raise LayerError(f"the database {self._path} is empty")
        return self._parsed(records)[0]

    def _parsed(self, records: Sequence[Record]) -> list[Item]:
        try:
            messages = [self._parse(value) for _, value in records]
        except DecodeError:
            messages = [self._parse_one(record) for record in records]
        if not self._annotated:
            return [Item(record, message, message) for record, message in zip(records, messages, strict=True)]
        items = [Item(record, message, message.datum) for record, message in zip(records, messages, strict=True)]
        for item in items:
            if not item.message.HasField("datum"):
                raise RistrettoError("the record has no datum", where=self.where(item))
        return items

    def _parse_one(self, record: Record) -> Message:
        try:
            return self._parse(record[1])
        except DecodeError:
            where = self.where(Item(record, None, None))
            raise RistrettoError(f"the record is not a valid {self._name} message", where=where) from None

    def _raw_batch(self, datums: Sequence[Message]) -> AnyArray | None:
        """All images at once, if they are raw bytes of the expected shape; otherwise None."""
        if any(d.encoded or (d.channels, d.height, d.width) != self._shape for d in datums):
            return None
        data = [d.data for d in datums]
        size = int(np.prod(self._shape))
        if any(len(bytes_) != size for bytes_ in data):
            return None
        return np.frombuffer(b"".join(data), np.uint8).reshape(len(datums), *self._shape)

    def _any_batch(self, items: Sequence[Item]) -> Images:
        """All images, one by one."""
        pairs = list(zip(items, self._transform.draws(len(items)), strict=True))
        encoded = any(item.datum.encoded for item in items)
        made = self._workers.map(self._image, pairs) if encoded else [self._image(pair) for pair in pairs]
        pixels = self._transform.batch(
            [image.pixels for image in made],
            [partial(self.where, item) for item in items],
            resize="Resize all images to the same size",
        )
        return Images(items, pixels, [image.extent for image in made], [image.windows for image in made])

    def _image(self, pair: tuple[Item, Draw]) -> _Image:
        """An item's image, augmented and resized by a Draw."""
        item, draw = pair
        datum, where = item.datum, self.where(item)
        encoded = bool(datum.encoded)
        if encoded:
            pixels = decode(datum.data, self._transform.decode_flag, where)
        else:
            image = _raw_image(datum, where)
            if not self._transform.augments:
                self._reject_resizing(image.shape, where)
                return _Image(image, (image.shape[1], image.shape[2]), self._transform.windows)
            if image.dtype != np.uint8:
                what = "the record has float_data, but augmentation needs images of bytes"
                raise RistrettoError(what, where=where, hint="Remove the augmentation.")
            pixels = np.ascontiguousarray(np.moveaxis(image, 0, 2))
        boxes = AnnotatedBoxes.of(item.message, where) if self._annotated and self._transform.augments else None
        pixels, windows = self._transform.augmented(pixels, boxes, draw, where, encoded=encoded)
        height, width, _ = pixels.shape
        return _Image(planes(self._transform.resized(pixels, draw, where)), (height, width), windows)

    def _reject_resizing(self, shape: Shape, where: str) -> None:
        # SSD crashes on such a record, or, with a crop, uses it without resizing.
        if self._transform.resize is not None and self._transform.resize.changes(*shape[1:]):
            what = f"the image, {show(shape)}, is not encoded, but resize_param needs encoded images"
            raise RistrettoError(what, where=where, hint="Store encoded images, or images of the right size.")


def _raw_image(datum: Message, where: str) -> AnyArray:
    """The image (C, H, W) of a Datum that is not encoded."""
    shape = (datum.channels, datum.height, datum.width)
    values: AnyArray = np.frombuffer(datum.data, np.uint8)
    if not len(values):
        values = np.array(datum.float_data, np.float32)
    if min(shape) < 1 or len(values) != shape[0] * shape[1] * shape[2]:
        what = f"the record has {len(values)} values for an image of {'x'.join(map(str, shape))}"
        raise RistrettoError(what, where=where)
    return values.reshape(shape)


def _open(path: Path, backend: str) -> Database:
    if not path.is_dir():
        raise LayerError(f"data_param.source {path} is not a folder", hint="Use the folder of the database.")
    if backend == "LMDB":
        if (path / "CURRENT").is_file() and not (path / "data.mdb").exists():
            raise LayerError(f"{path} is a LevelDB database, not LMDB", hint="Set backend: LEVELDB.")
        return Lmdb(path)
    if (path / "data.mdb").is_file():
        raise LayerError(f"{path} is an LMDB database, not LevelDB", hint="Set backend: LMDB.")
    return LevelDb(path)
