"""A scanner of protobuf's binary format, without building messages: the positions of fields.

Large arrays are not copied; only their position is returned. Lengths in a file are not trusted
before they have been checked against the bytes available.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, GROUP_START, GROUP_END, FIXED32 = range(6)
_MAX_NESTED_GROUPS = 100


class BadBytes(Exception):
    """The bytes are not a protobuf message."""


class Field(NamedTuple):
    """A field: its number, how it is stored, where it begins (tag), and its value's bytes [start, stop)."""

    number: int
    wire_type: int
    tag: int
    start: int
    stop: int


def fields(data: memoryview, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message in data[start:stop]; BadBytes if it is malformed."""
    at = start
    while at < stop:
        tag = at
        key, at = read_varint(data, at, stop)
        number, wire_type = key >> 3, key & 7
        if number == 0 or number >= 1 << 29:
            raise BadBytes(f"invalid field number {number} at byte {tag}")
        end = _value_end(data, wire_type, number, at, stop)
        if wire_type == BYTES:
            _, at = read_varint(data, at, stop)
        yield Field(number, wire_type, tag, at, end)
        at = end


def read_varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """The number (below 2**64) stored at `at`, and where the next field begins."""
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
        shift += 7
    raise BadBytes(f"unterminated varint at byte {at}")


def varint(value: int) -> bytes:
    """A number, 0 or more, as the binary format stores it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _value_end(data: memoryview, wire_type: int, number: int, at: int, stop: int) -> int:
    if wire_type == VARINT:
        return read_varint(data, at, stop)[1]
    if wire_type == BYTES:
        size, at = read_varint(data, at, stop)
    elif wire_type == FIXED32:
        size = 4
    elif wire_type == FIXED64:
        size = 8
    elif wire_type == GROUP_START:
        return _group_end(data, number, at, stop)
    else:
        raise BadBytes(f"invalid wire type {wire_type} at byte {at}")
    if size > stop - at:
        raise BadBytes(f"{size} bytes are declared at byte {at}, but {stop - at} are available")
    return at + size


def _group_end(data: memoryview, number: int, at: int, stop: int) -> int:
    opened = [number]
    while opened:
        key, at = read_varint(data, at, stop)
        if key & 7 == GROUP_START:
            opened.append(key >> 3)
            if len(opened) > _MAX_NESTED_GROUPS:
                raise BadBytes(f"groups are nested too deeply at byte {at}")
        elif key & 7 == GROUP_END:
            if opened.pop() != key >> 3:
                raise BadBytes(f"mismatched end of group at byte {at}")
        else:
            at = _value_end(data, key & 7, key >> 3, at, stop)
    return at
