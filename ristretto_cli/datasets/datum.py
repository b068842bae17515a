"""Datum records as Caffe's converters write them, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.wire_format import BYTES, varint
from ristretto_cli.libraries import cv2
from ristretto_cli.ops import Array
from ristretto_cli.sources.images import Pixels

Piece: TypeAlias = bytes | memoryview

_DATA = 4


def raw_datum(image: Pixels, label: int) -> bytes:
    """The record of an image (H, W, C), as in convert_imageset: in planes, (C, H, W)."""
    height, width, channels = image.shape
    head = {"channels": channels, "height": height, "width": width}
    # encoded has its default value, but convert_imageset writes it explicitly.
    return _record(head, [plane.data for plane in cv2.split(image)], {"label": label, "encoded": False})


def encoded_datum(data: bytes, label: int) -> bytes:
    """The record of an encoded image (PNG, JPEG, ...), without a shape."""
    return _record({}, [data], {"label": label, "encoded": True})


def plain_datum(data: bytes, shape: tuple[int, int, int], label: int) -> bytes:
    """The record of an image of shape (C, H, W) from raw bytes."""
    head = dict(zip(("channels", "height", "width"), shape, strict=True))
    return _record(head, [data], {"label": label})


def float_datum(values: Array) -> bytes:
    """The record of features: (C), (C, H), (C, H, W), or () for a single value."""
    channels, height, width = (*values.shape, 1, 1, 1)[:3]
    fields = {"channels": channels, "height": height, "width": width}
    return bytes(new("Datum", **fields, float_data=np.ravel(values).tolist()).SerializeToString())


def _record(head: dict[str, Any], data: Sequence[Piece], tail: dict[str, Any]) -> bytes:
    """A Datum of the fields before data, data in pieces, and the fields after it.

    Assembled here, because a message would copy the data twice more, which takes as long as writing it.
    """
    size = sum(memoryview(piece).nbytes for piece in data)
    before = new("Datum", **head).SerializeToString() + varint(_DATA << 3 | BYTES) + varint(size)
    return b"".join([before, *data, new("Datum", **tail).SerializeToString()])
