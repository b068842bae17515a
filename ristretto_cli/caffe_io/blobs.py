"""BlobProto: one stored array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from ristretto_cli.caffe_io.messages import Message, message_class, new
from ristretto_cli.caffe_io.wire_format import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    BadBytes,
    Field,
    fields,
    read_varint,
    varint,
)
from ristretto_cli.errors import RistrettoError

_DATA, _DIFF, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 8, 9
# NVIDIA's Caffe and OpenCV's shrinking tool store values as bytes, of a type with a number of its own.
_RAW_TYPE, _RAW_DIFF_TYPE, _RAW_DATA, _RAW_DIFF = 10, 11, 12, 13
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}
_LEGACY = ("num", "channels", "height", "width")
_MAX_AXES = 32


@dataclass(frozen=True)
class StoredBlob:
    """An array as stored in a file.

    array: float32, read-only, with the stored shape; it may be a view into the file, at any byte offset.
    legacy: the shape was given as num, channels, height, width: such a blob also fits a parameter with fewer
    axes whose extents equal the last ones, the others being 1. stored: false for an array that the file
    leaves out, because another layer owns it (HDF5 only); array is then empty.
    """

    array: npt.NDArray[np.float32]
    legacy: bool = False
    stored: bool = True


def decode_blob(data: memoryview, start: int, stop: int, where: str) -> StoredBlob:
    """The BlobProto in data[start:stop]; `where` is the location in errors. Its diff is skipped."""
    small = bytearray()
    singles: list[Field] = []
    doubles: list[Field] = []
    raw: Field | None = None
    raw_type = 0
    try:
        for field in fields(data, start, stop):
            if field.number == _DATA:
                singles.append(field)
            elif field.number == _DOUBLE_DATA:
                doubles.append(field)
            elif field.number == _RAW_DATA and field.wire_type == BYTES:
                raw = field
            elif field.number == _RAW_TYPE and field.wire_type == VARINT:
                raw_type, _ = read_varint(data, field.start, field.stop)
            elif field.number not in (_DIFF, _DOUBLE_DIFF, _RAW_DIFF_TYPE, _RAW_DIFF):
                small += data[field.tag : field.stop]
        message = message_class("BlobProto").FromString(bytes(small))
    except (BadBytes, DecodeError) as fault:
        raise RistrettoError(f"the blob is damaged: {fault}", where=where) from None
    # As in Caffe, doubles take precedence.
    values = _values(data, doubles, FIXED64, where) if doubles else None
    if values is None or values.size == 0:
        values = _values(data, singles, FIXED32, where)
    if values.size == 0 and raw is not None:
        values = _raw_values(data, raw, raw_type, where)
    legacy, shape = _shape(message, where)
    if math.prod(shape) != values.size:
        extents = "x".join(map(str, shape)) or "scalar"
        raise RistrettoError(
            f"the shape {extents} has {math.prod(shape)} values, but {values.size} are stored", where=where
        )
    # The view may be unaligned; numpy can read it.
    array = values.reshape(shape)
    array.flags.writeable = False
    return StoredBlob(array, legacy)


def encode_blob(array: npt.NDArray[Any], diff: npt.NDArray[Any] | None = None) -> list[bytes | memoryview]:
    """A BlobProto with the array's shape and its values as float32, in pieces to be written in order.

    diff: its gradient, of the same shape.
    """
    pieces: list[bytes | memoryview] = []
    for number, values in ((_DATA, array), (_DIFF, diff)):
        if values is not None and values.size:
            raw = _bytes(values)
            pieces += [varint(number << 3 | BYTES) + varint(len(raw)), raw]
    return [*pieces, new("BlobProto", shape=new("BlobShape", dim=array.shape)).SerializeToString()]


def _bytes(values: npt.NDArray[Any]) -> memoryview:
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(values, dtype="<f4").reshape(-1).view(np.uint8).data


def _shape(message: Message, where: str) -> tuple[bool, tuple[int, ...]]:
    legacy = any(message.HasField(name) for name in _LEGACY)
    shape = tuple(getattr(message, name) for name in _LEGACY) if legacy else tuple(message.shape.dim)
    if len(shape) > _MAX_AXES:
        raise RistrettoError(f"the blob has {len(shape)} axes; the maximum is {_MAX_AXES}", where=where)
    for extent in shape:
        if not 0 <= extent < 2**31:
            raise RistrettoError(f"invalid extent {extent}", where=where)
    return legacy, shape


def _values(data: memoryview, found: Sequence[Field], unpacked: int, where: str) -> npt.NDArray[np.float32]:
    """The values as float32: a view if they are contiguous float32, as in nearly every file."""
    size = 4 if unpacked == FIXED32 else 8
    for field in found:
        if field.wire_type not in (BYTES, unpacked) or (field.stop - field.start) % size:
            raise RistrettoError("the blob is damaged: its values are truncated", where=where)
    kind = "<f4" if size == 4 else "<f8"
    if len(found) == 1:
        (field,) = found
        values = np.frombuffer(data, kind, (field.stop - field.start) // size, field.start)
    else:
        values = np.frombuffer(b"".join(data[field.start : field.stop] for field in found), kind)
    with np.errstate(all="ignore"):  # a double beyond float32 becomes infinite, as in C++
        return values.astype(np.float32, copy=False)


def _raw_values(data: memoryview, field: Field, number: int, where: str) -> npt.NDArray[np.float32]:
    """The values of raw_data as float32; number: its raw_data_type."""
    if number not in _RAW_TYPES:
        what = f"its values are of raw_data_type {number}, which is not a type of weights"
        raise RistrettoError(what, where=where, hint="Expected 0 (double), 1 (float) or 2 (half precision).")
    kind = np.dtype(_RAW_TYPES[number])
    if (field.stop - field.start) % kind.itemsize:
        raise RistrettoError("the blob is damaged: its values are truncated", where=where)
    values = np.frombuffer(data, kind, (field.stop - field.start) // kind.itemsize, field.start)
    with np.errstate(all="ignore"):
        return values.astype(np.float32, copy=False)
