"""Parsing of scalar values in text format."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from ristretto_cli.caffe_io.tokens import Kind, Tokens, is_decimal, parse_integer, shorten, unescape
from ristretto_cli.errors import did_you_mean

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_MAX_LISTED = 12


class BadValue(Exception):
    """A value that is invalid for its field: offset, message, hint; consumed: whether its token was read."""

    def __init__(self, offset: int, what: str, hint: str = "", *, consumed: bool = False) -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what
        self.hint = hint
        self.consumed = consumed


def read_scalar(tokens: Tokens, field: FieldDescriptor) -> int | float | bool | str | bytes:
    """The current value, of the type of the field; BadValue if it is invalid."""
    kind = field.cpp_type
    if kind in _RANGES:
        return _integer(tokens, field, *_RANGES[kind])
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return _float(tokens, field)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _bool(tokens, field)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(tokens, field)
    data, start = _bytes(tokens, field)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadValue(start, f"{field.name}: the string is not UTF-8", consumed=True) from None


def _integer(tokens: Tokens, field: FieldDescriptor, low: int, high: int) -> int:
    start = tokens.now.start
    expected = "an integer" if low < 0 else "a non-negative integer"
    negative = low < 0 and tokens.take("-")
    if tokens.now.kind is not Kind.INTEGER:
        raise BadValue(start, f"{field.name}: expected {expected}, found {_found(tokens)}")
    word = tokens.next().text
    value = parse_integer(word)
    if value is not None and negative:
        value = -value
    if value is None or not low <= value <= high:
        sign = "-" if negative else ""
        raise BadValue(start, f"{field.name}: {sign}{shorten(word)} is out of range ({low} to {high})", consumed=True)
    return value


def _float(tokens: Tokens, field: FieldDescriptor) -> float:
    start = tokens.now.start
    negative = tokens.take("-")
    word, kind = tokens.now.text, tokens.now.kind
    if kind is Kind.INTEGER:
        if not is_decimal(word):
            tokens.next()
            what = f"{field.name}: expected a decimal number, found {shorten(word)}"
            raise BadValue(start, what, consumed=True)
        value = float(word)
    elif kind is Kind.FLOAT:
        try:
            value = float(word.rstrip("fF"))
        except ValueError:  # an exponent without digits, which has been reported
            value = 0.0
    elif kind is Kind.NAME and word.lower() in ("inf", "infinity", "nan"):
        value = math.nan if word.lower() == "nan" else math.inf
    else:
        raise BadValue(start, f"{field.name}: expected a number, found {_found(tokens)}")
    tokens.next()
    return -value if negative else value


def _bool(tokens: Tokens, field: FieldDescriptor) -> bool:
    now = tokens.now
    value: bool | None = None
    if now.kind is Kind.INTEGER:
        number = parse_integer(now.text)
        value = bool(number) if number in (0, 1) else None
    elif now.kind is Kind.NAME:
        value = _BOOLS.get(now.text)
    if value is None:
        raise BadValue(now.start, f"{field.name}: expected true or false, found {_found(tokens)}")
    tokens.next()
    return value


def _enum(tokens: Tokens, field: FieldDescriptor) -> int:
    enum: Any = field.enum_type
    start = tokens.now.start
    if tokens.now.kind is Kind.NAME:
        word = tokens.now.text
        value = enum.values_by_name.get(word)
    elif tokens.now.kind is Kind.STRING:
        raise BadValue(start, f"{field.name}: expected a name of {enum.name} without quotes, found a string")
    else:
        number = _integer(tokens, field, *_RANGES[FieldDescriptor.CPPTYPE_INT32])
        word = str(number)
        value = enum.values_by_number.get(number)
    if value is None:
        names = [known.name for known in enum.values]
        near = did_you_mean(word, names) if len(word) < 80 else ""
        listed = f"Known: {', '.join(names)}." if len(names) <= _MAX_LISTED else ""
        consumed = tokens.now.start != start
        what = f"{field.name}: {shorten(word)} is not a value of {enum.name}"
        raise BadValue(start, what, f"{near} {listed}".strip(), consumed=consumed)
    if tokens.now.start == start:
        tokens.next()
    return int(value.number)


def _bytes(tokens: Tokens, field: FieldDescriptor) -> tuple[bytes, int]:
    start = tokens.now.start
    if tokens.now.kind is not Kind.STRING:
        raise BadValue(start, f"{field.name}: expected a string in quotes, found {_found(tokens)}")
    parts, wrong = [], ""
    while tokens.now.kind is Kind.STRING:  # adjacent strings are concatenated
        part, wrong_here = unescape(tokens.next().text)
        parts.append(part)
        wrong = wrong or wrong_here
    if wrong:
        raise BadValue(start, f"{field.name}: invalid escape sequence {wrong!a}", consumed=True)
    return b"".join(parts), start


def _found(tokens: Tokens) -> str:
    return shorten(tokens.now.text)
