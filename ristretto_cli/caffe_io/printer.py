"""Messages as text, byte for byte as the C++ TextFormat prints them."""

from __future__ import annotations

import math
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from ristretto_cli.caffe_io.messages import Message, is_repeated

_ESCAPES = {
    ord("\n"): r"\n",
    ord("\r"): r"\r",
    ord("\t"): r"\t",
    ord('"'): r"\"",
    ord("'"): r"\'",
    ord("\\"): r"\\",
}


def to_text(message: Message) -> str:
    """A message in text format: the set fields by number, one value per line, indented by two spaces per level.

    Floats have 6 digits if these determine the float32, otherwise 9. Fields unknown to the schema are omitted.
    """
    lines: list[str] = []
    _print(message, "", lines)
    return "".join(lines)


def _print(message: Message, indent: str, lines: list[str]) -> None:
    for field, value in message.ListFields():  # sorted by number
        for item in value if is_repeated(field) else (value,):
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                lines.append(f"{indent}{field.name} {{\n")
                _print(item, indent + "  ", lines)
                lines.append(f"{indent}}}\n")
            else:
                lines.append(f"{indent}{field.name}: {_scalar(field, item)}\n")


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{escape(value.encode("utf-8"))}"'
    if isinstance(value, bytes):
        return f'"{escape(value)}"'
    if isinstance(value, float):
        return float_text(value) if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else _double_text(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else str(value)
    return str(value)


def escape(data: bytes) -> str:
    """The inside of a string literal; bytes that are not printable ASCII become three octal digits."""
    return "".join(_ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}") for byte in data)


def float_text(value: float) -> str:
    """A float32 as C++ prints it: 1, 0.1, 1e-05, 0.333333343, inf, -inf, nan."""
    if not math.isfinite(value):
        return _not_finite(value)
    short = f"{value:.6g}"
    try:
        same = struct.pack("<f", float(short)) == struct.pack("<f", value)
    except OverflowError:  # six digits of the largest float32 round up beyond it
        same = False
    return short if same else f"{value:.9g}"


def _double_text(value: float) -> str:
    if not math.isfinite(value):
        return _not_finite(value)
    short = f"{value:.15g}"
    return short if float(short) == value else f"{value:.17g}"


def _not_finite(value: float) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
