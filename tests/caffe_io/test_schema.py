"""The schema that is compiled at build time is Caffe's, field by field and value by value.

The additional fields of forks are in a file of their own, and tested in test_forks.py.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from ristretto_cli.caffe_io.messages import enum_name, enum_value, is_repeated, is_required, new, schema_files

HERE = Path(__file__).parent
MESSAGES = ("NetParameter", "SolverParameter", "SolverState", "Datum", "BlobProtoVector")


def table(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@cache
def core() -> Any:
    """caffe.proto as a FileDescriptor, without the forks' fields."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema_files()[0])
    return pool.FindFileByName("caffe.proto")


def messages() -> dict[str, Any]:
    """Every message's descriptor, by its name; all are in one file."""
    return dict(core().message_types_by_name)


def short(full_name: str) -> str:
    return full_name.removeprefix("caffe.")


def enums() -> Iterator[Any]:
    yield from core().enum_types_by_name.values()
    for message in messages().values():
        yield from message.enum_types


def type_name(field: Any) -> str:
    if field.message_type is not None:
        return short(field.message_type.full_name)
    if field.enum_type is not None:
        return short(field.enum_type.full_name)
    names = {
        1: "double",
        2: "float",
        3: "int64",
        4: "uint64",
        5: "int32",
        8: "bool",
        9: "string",
        12: "bytes",
    }
    return names.get(field.type, "uint32" if field.type == 13 else f"type {field.type}")


def same_default(field: Any, text: str) -> bool:
    value = field.default_value
    if text == "":
        return not field.has_default_value
    if not field.has_default_value:
        return False
    if field.enum_type is not None:
        return bool(field.enum_type.values_by_number[value].name == text)
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, float):
        return struct.pack("<f", value) == struct.pack("<f", float(text))
    return str(value) == text


def test_there_are_the_same_messages() -> None:
    assert set(messages()) == {row["message"] for row in table("caffe_fields.tsv")}


def test_every_field_has_the_same_number_label_type_default_and_packing() -> None:
    known = {}
    for name, message in messages().items():
        for field in message.fields:
            known[name, field.name] = field
    rows = table("caffe_fields.tsv")
    assert rows
    assert set(known) == {(row["message"], row["field"]) for row in rows}
    for row in rows:
        field = known[row["message"], row["field"]]
        label = "repeated" if is_repeated(field) else "required" if is_required(field) else "optional"
        packed = "packed" if field.GetOptions().packed else ""
        assert (field.number, label, type_name(field), packed) == (
            int(row["number"]),
            row["label"],
            row["type"],
            row["options"],
        ), row
        assert same_default(field, row["default"]), (row, field.default_value)


def test_every_enum_has_the_same_values() -> None:
    known = {(short(enum.full_name), value.name, value.number) for enum in enums() for value in enum.values}
    assert known == {(row["enum"], row["value"], int(row["number"])) for row in table("caffe_enums.tsv")}


def test_enum_values_and_names_translate_both_ways() -> None:
    assert enum_value("EltwiseParameter.EltwiseOp", "SUM") == 1
    assert enum_name(new("EltwiseParameter", operation=2), "operation") == "MAX"
    assert enum_name(new("EltwiseParameter"), "operation") == "SUM"


@pytest.mark.parametrize("name", MESSAGES)
def test_a_new_message_is_empty(name: str) -> None:
    assert new(name).ListFields() == []
