"""Writing text format: what C++ prints, byte for byte."""

from __future__ import annotations

import math

import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.printer import float_text, to_text
from ristretto_cli.caffe_io.prototxt import parse


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.00390625, "0.00390625"),
        (1e-5, "1e-05"),
        (0.10000000149011612, "0.1"),
        (1e20, "1e+20"),
        (123456.0, "123456"),
        (1234567.0, "1234567"),
        (16777216.0, "16777216"),
        (0.3333333432674408, "0.333333343"),
        (3.4028234663852886e38, "3.40282347e+38"),
        (-0.0, "-0"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_floats_have_six_digits_or_nine(value: float, text: str) -> None:
    assert float_text(value) == text


def test_messages_are_indented_and_fields_sorted_by_number() -> None:
    text = 'layer { type: "ReLU" name: "r" relu_param { } bottom: "a" bottom: "b" } name: "n" state { phase: TRAIN }'
    assert to_text(parse(text, "NetParameter", "f").message) == (
        'name: "n"\n'
        "state {\n"
        "  phase: TRAIN\n"
        "}\n"
        "layer {\n"
        '  name: "r"\n'
        '  type: "ReLU"\n'
        '  bottom: "a"\n'
        '  bottom: "b"\n'
        "  relu_param {\n"
        "  }\n"
        "}\n"
    )


def test_strings_are_escaped() -> None:
    assert to_text(new("NetParameter", name="a\"b'c\\d\n\r\t\x01é\x7f")) == (
        'name: "a\\"b\\\'c\\\\d\\n\\r\\t\\001\\303\\251\\177"\n'
    )


def test_bytes_and_booleans() -> None:
    assert to_text(new("Datum", data=b"\xff1", encoded=False)) == 'data: "\\3771"\nencoded: false\n'


def test_set_fields_are_printed_even_with_their_default() -> None:
    assert to_text(new("FillerParameter", value=0.0)) == "value: 0\n"


def test_an_empty_message_is_no_text() -> None:
    assert to_text(new("NetParameter")) == ""


def test_packed_fields_stand_one_a_line_and_doubles_have_their_digits() -> None:
    blob = new("BlobProto", data=[1.0, 0.5], double_data=[0.1, 1 / 3])
    assert to_text(blob) == "data: 1\ndata: 0.5\ndouble_data: 0.1\ndouble_data: 0.33333333333333331\n"
