"""Whatever the message, the text or the bytes: they come back, or are refused in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ristretto_cli.caffe_io.blobs import decode_blob
from ristretto_cli.caffe_io.caffemodel import read_caffemodel, read_net_message
from ristretto_cli.caffe_io.messages import is_repeated, message_class
from ristretto_cli.caffe_io.prototxt import parse, to_text
from ristretto_cli.caffe_io.upgrade import upgrade
from ristretto_cli.caffe_io.weights import read_weights, write_weights
from ristretto_cli.errors import RistrettoError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    1: st.integers(-(2**31), 2**31 - 1),
    2: st.integers(-(2**63), 2**63 - 1),
    3: st.integers(0, 2**32 - 1),
    4: st.integers(0, 2**64 - 1),
    5: st.floats(allow_nan=False),
    6: st.floats(width=32, allow_nan=False),
    7: st.booleans(),
}


def fill(draw: Any, message: Any, depth: int) -> None:
    """Set some fields at random, by the descriptor."""
    chosen = draw(st.lists(st.sampled_from(list(message.DESCRIPTOR.fields)), max_size=4))
    for field in {field.number: field for field in chosen}.values():
        for _ in range(draw(st.integers(1, 3)) if is_repeated(field) else 1):
            if field.message_type is not None:
                if depth == 0 or field.message_type.name == "ClipParameter":
                    continue
                inner = getattr(message, field.name)
                inner = inner.add() if is_repeated(field) else inner
                inner.SetInParent()
                fill(draw, inner, depth - 1)
                continue
            if field.enum_type is not None:
                value = draw(st.sampled_from([item.number for item in field.enum_type.values]))
            else:
                value = draw(SCALARS[field.cpp_type] if field.cpp_type != 9 else TEXT)
            if is_repeated(field):
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)


@st.composite
def messages(draw: Any, name: str) -> Any:
    message = message_class(name)()
    fill(draw, message, 4)
    return message


WORDS = st.sampled_from(
    [
        *(
            "layer",
            "layers",
            "name",
            "pad",
            "loss_weight",
            "input_dim",
            "state",
            "pooling_param",
            "phase",
            "x",
        ),
        *"{}<>[]:,;-.#=\"'\\ \n",
        *("0x1", "010", "1.5", "2f", "inf", "TEST", "true", '"a"', "'b'", "\u00e9", "\x00"),
    ]
)


@given(messages("NetParameter"))
@settings(deadline=None, max_examples=150)
def test_a_printed_net_reads_as_itself(message: Any) -> None:
    assert parse(to_text(message), "NetParameter", "f").message == message


@given(messages("SolverParameter"))
@settings(deadline=None, max_examples=50)
def test_a_printed_solver_reads_as_itself(message: Any) -> None:
    assert parse(to_text(message), "SolverParameter", "f").message == message


@given(st.lists(WORDS, max_size=30).map(" ".join) | st.lists(WORDS, max_size=30).map("".join) | st.text())
@settings(deadline=None, max_examples=300)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        message = parse(text, "NetParameter", "f").message
    except RistrettoError:
        return
    printed = to_text(message)
    assert to_text(parse(printed, "NetParameter", "f").message) == printed


@given(messages("NetParameter"))
@settings(deadline=None, max_examples=100)
def test_any_net_is_upgraded_or_refused_and_then_up_to_date(message: Any) -> None:
    try:
        upgraded = upgrade(message)
    except RistrettoError:
        return
    assert len(upgraded.layers) == len(upgraded.message.layer)
    assert not upgraded.message.layers
    assert not upgraded.message.input
    assert upgrade(upgraded.message).message == upgraded.message


def model() -> bytes:
    net = message_class("NetParameter")(name="n")
    for name in ("a", "b"):
        blob = net.layer.add(name=name, type="InnerProduct").blobs.add()
        blob.shape.dim.extend([2, 3])
        blob.data.extend(range(6))
        blob.diff.extend(range(6))
    old = net.layer.add(name="c").blobs.add(num=1, channels=1, height=1, width=2)
    old.double_data.extend([1.5, 2.5])
    return bytes(net.SerializeToString())


def look_at(data: bytes) -> None:
    """Read data in all the ways there are; nothing but RistrettoError may come of it."""
    for reader in (
        lambda: [blob.array.tobytes() for blobs in read_caffemodel(memoryview(data), "f").values() for blob in blobs],
        lambda: decode_blob(memoryview(data), 0, len(data), "f"),
        lambda: upgrade(read_net_message(memoryview(data), "f")),
    ):
        try:
            reader()
        except RistrettoError as fault:
            assert str(fault).startswith("f")


def test_a_model_cut_anywhere_is_read_or_refused() -> None:
    data = model()
    for end in range(len(data)):
        look_at(data[:end])


@given(st.lists(st.tuples(st.integers(0, len(model()) - 1), st.integers(0, 255)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=300)
def test_a_model_with_changed_bytes_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(model())
    for at, byte in changes:
        data[at] = byte
    look_at(bytes(data))


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    look_at(data)


ARRAYS = st.lists(st.integers(0, 3), max_size=4).flatmap(
    lambda shape: st.integers(0, 99).map(
        lambda seed: np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    )
)


@given(
    st.dictionaries(TEXT, st.lists(ARRAYS, min_size=1, max_size=2), max_size=3),
    st.sampled_from(["m", "m.h5"]),
)
@settings(deadline=None, max_examples=60)
def test_written_weights_read_as_themselves(layers: dict[str, list[Any]], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        try:
            write_weights(file, layers)
        except RistrettoError:
            assert name == "m.h5"  # HDF5 has no place for some names
            assert list(Path(folder).iterdir()) == []
            return
        if not layers and name == "m":
            return
        read = read_weights(file).layers
        assert set(read) == set(layers)
        for key, arrays in layers.items():
            assert len(read[key]) == len(arrays)
            for array, blob in zip(arrays, read[key], strict=True):
                assert blob.array.shape == array.shape
                assert np.array_equal(blob.array, array)
