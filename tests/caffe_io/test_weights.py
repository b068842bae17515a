"""Files of weights: of all formats and ages, and what is wrong with the damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.caffe_io.weights import (
    read_blob,
    read_net_binary,
    read_weight_files,
    read_weights,
    write_weights,
)
from ristretto_cli.caffe_io.wire_format import varint
from ristretto_cli.errors import RistrettoError

Save = Callable[[str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a NetParameter, given as text, as a caffemodel."""

    def write(text: str) -> Path:
        file = tmp_path / "net.caffemodel"
        file.write_bytes(parse(text, "NetParameter", "f").message.SerializeToString())
        return file

    return write


def fault(file: Path, read: Callable[[Path], Any] = read_weights) -> str:
    with pytest.raises(RistrettoError) as caught:
        read(file)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert "\n" not in text
    return text[len(str(file)) :]


# caffemodels


def test_layers_with_blobs_are_read_in_file_order(save: Save) -> None:
    file = save(
        'layer { name: "z" blobs { shape { dim: 2 dim: 3 } data: [1, 2, 3, 4, 5, 6] }'
        " blobs { shape { dim: 1 } data: 7 } }"
        'layer { name: "r" type: "ReLU" } layer { name: "a" blobs { shape { dim: 1 } data: 8 } }'
    )
    weights = read_weights(file)
    assert weights.file == str(file)
    assert list(weights.layers) == ["z", "a"]
    first, second = weights.layers["z"]
    assert first.array.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert second.array.tolist() == [7]
    assert first.array.dtype == np.float32
    assert not first.legacy
    assert first.stored


def test_arrays_are_read_only_views(save: Save) -> None:
    file = save('layer { name: "a" blobs { shape { dim: 2 } data: [1, 2] } }')
    array = read_weights(file).layers["a"][0].array
    assert not array.flags.writeable
    assert not array.flags.owndata


def test_v1_layers(save: Save) -> None:
    file = save('layers { name: "a" type: CONVOLUTION blobs { num: 1 channels: 1 height: 1 width: 2 data: [1, 2] } }')
    (blob,) = read_weights(file).layers["a"]
    assert blob.array.shape == (1, 1, 1, 2)
    assert blob.legacy


def test_v0_layers_drop_the_fields_next_to_the_inner_layer(save: Save) -> None:
    file = save(
        'layers { layer { name: "a" type: "conv" blobs { num: 1 channels: 1 height: 1 width: 1 data: 3 } } }'
        'layers { name: "b" blobs { num: 1 channels: 1 height: 1 width: 1 data: 4 } }'
    )
    layers = read_weights(file).layers
    assert list(layers) == ["a"]
    assert layers["a"][0].array.tolist() == [[[[3]]]]


def test_legacy_extents_win_over_a_shape(save: Save) -> None:
    """num was given, the others are 0, so there are no values."""
    file = save('layer { name: "a" blobs { num: 1 shape { dim: 0 } } }')
    assert read_weights(file).layers["a"][0].array.shape == (1, 0, 0, 0)


def test_doubles_become_floats_and_win(save: Save) -> None:
    file = save('layer { name: "a" blobs { shape { dim: 2 } double_data: [0.1, 1e300] data: [5, 6] } }')
    (blob,) = read_weights(file).layers["a"]
    assert blob.array.tolist() == [0.10000000149011612, float("inf")]
    assert blob.array.dtype == np.float32


RAW = {0: "<f8", 1: "<f4", 2: "<f2"}


def write_raw(folder: Path, values: bytes, number: int | None, *, data: bytes = b"") -> Path:
    """A caffemodel of a layer "a" with a blob of shape (3,) whose values are raw_data."""
    kind = b"" if number is None else varint(10 << 3) + varint(number)
    diff = varint(11 << 3) + varint(2) + varint(13 << 3 | 2) + varint(2) + b"\x00\x3c"
    shape = new("BlobProto", shape=new("BlobShape", dim=[3])).SerializeToString()
    blob = data + shape + kind + diff + varint(12 << 3 | 2) + varint(len(values)) + values
    layer = b"\x0a\x01a" + varint(7 << 3 | 2) + varint(len(blob)) + blob
    file = folder / "raw.caffemodel"
    file.write_bytes(varint(100 << 3 | 2) + varint(len(layer)) + layer)
    return file


@pytest.mark.parametrize(("number", "kind"), RAW.items())
def test_values_as_bytes_of_a_fork(tmp_path: Path, number: int, kind: str) -> None:
    file = write_raw(tmp_path, np.array([1.5, -2, 0.25], kind).tobytes(), number)
    array = read_weights(file).layers["a"][0].array
    assert array.dtype == np.float32
    assert array.tolist() == [1.5, -2, 0.25]


def test_values_as_bytes_without_a_type_are_doubles(tmp_path: Path) -> None:
    file = write_raw(tmp_path, np.array([1, 2, 3], "<f8").tobytes(), None)
    assert read_weights(file).layers["a"][0].array.tolist() == [1, 2, 3]


def test_values_as_floats_win_over_bytes(tmp_path: Path) -> None:
    floats = new("BlobProto", data=[7, 8, 9]).SerializeToString()
    file = write_raw(tmp_path, np.array([1, 2, 3], "<f2").tobytes(), 2, data=floats)
    assert read_weights(file).layers["a"][0].array.tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("number", "size", "reported"),
    [
        (2, 5, "the blob is damaged: its values are truncated"),
        (2, 4, "the shape 3 has 3 values, but 2 are stored"),
        (3, 12, "its values are of raw_data_type 3, which is not a type of weights. Expected 0 (double), "),
    ],
)
def test_bytes_that_are_no_values_are_reported(tmp_path: Path, number: int, size: int, reported: str) -> None:
    assert f': layer "a" blob 0: {reported}' in fault(write_raw(tmp_path, bytes(size), number))


def test_a_mean_file_in_half_precision(tmp_path: Path) -> None:
    shape = new("BlobProto", shape=new("BlobShape", dim=[2])).SerializeToString()
    values = np.array([104, 117.5], "<f2").tobytes()
    (tmp_path / "mean").write_bytes(shape + varint(10 << 3) + varint(2) + varint(12 << 3 | 2) + varint(4) + values)
    assert read_blob(tmp_path / "mean").tolist() == [104, 117.5]


def test_diffs_are_passed_over(save: Save) -> None:
    file = save('layer { name: "a" blobs { shape { dim: 1 } data: 1 diff: 9 double_diff: 9 } }')
    assert read_weights(file).layers["a"][0].array.tolist() == [1]


def test_a_blob_without_shape_is_a_scalar(save: Save) -> None:
    assert read_weights(save('layer { name: "a" blobs { data: 4 } }')).layers["a"][0].array.shape == ()


def test_values_in_several_pieces_and_unpacked(tmp_path: Path) -> None:
    def value(*numbers: float) -> bytes:
        return np.array(numbers, "<f4").tobytes()

    def part(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    unpacked = varint(5 << 3 | 5)
    blob = part(5, value(1, 2)) + part(7, b"\x08\x04") + unpacked + value(3) + part(5, b"") + unpacked + value(4)
    file = tmp_path / "m"
    file.write_bytes(part(100, part(1, b"a") + part(7, blob)))
    assert read_weights(file).layers["a"][0].array.tolist() == [1, 2, 3, 4]


def test_of_two_layers_with_one_name_the_last_counts(save: Save) -> None:
    blob = "blobs {{ shape {{ dim: 1 }} data: {} }}"
    file = save(f'layer {{ name: "a" {blob.format(1)} }} layer {{ name: "a" {blob.format(2)} }}')
    assert read_weights(file).layers["a"][0].array.tolist() == [2]


def test_a_repeated_layer_has_the_place_of_its_last_copy(save: Save) -> None:
    blob = "blobs { shape { dim: 1 } data: 1 }"
    file = save("".join(f'layer {{ name: "{name}" {blob} }}' for name in "aba"))
    assert list(read_weights(file).layers) == ["b", "a"]


def test_several_files_are_merged_and_the_last_counts(tmp_path: Path) -> None:
    write_weights(tmp_path / "1.caffemodel", {"a": [np.ones(1)], "b": [np.ones(1)]})
    write_weights(tmp_path / "2.h5", {"a": [np.zeros(1)]})
    merged = read_weight_files(f"{tmp_path}/1.caffemodel, {tmp_path}/2.h5")
    assert {name: blobs[0].array.tolist() for name, blobs in merged.layers.items()} == {"b": [1], "a": [0]}
    assert list(merged.layers) == ["b", "a"]  # in the order in which Caffe copies them
    assert merged.file == f"{tmp_path}/1.caffemodel, {tmp_path}/2.h5"


def test_a_comma_in_the_name_of_a_file_is_no_list(tmp_path: Path) -> None:
    write_weights(tmp_path / "a,b.caffemodel", {"a": [np.ones(1)]})
    assert list(read_weight_files(f"{tmp_path}/a,b.caffemodel").layers) == ["a"]


def test_a_list_where_one_file_is_expected_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_weights(tmp_path / name, {"a": [np.ones(1)]})
    with pytest.raises(RistrettoError, match="This command takes a single file of weights"):
        read_weights(f"{tmp_path}/a,{tmp_path}/b")


@pytest.mark.parametrize(
    ("blob", "reported"),
    [
        ("shape { dim: 2 dim: 2 } data: [1, 2, 3]", "the shape 2x2 has 4 values, but 3 are stored"),
        ("shape { dim: 2 }", "the shape 2 has 2 values, but 0 are stored"),
        ("shape { dim: -1 dim: -1 } data: 1", "invalid extent -1"),
        ("shape { dim: 9223372036854775807 } data: 1", "invalid extent 9223372036854775807"),
        ("shape { dim: 2147483647 dim: 2147483647 dim: 2147483647 } data: 1", "1 are stored"),
        ("num: 1 channels: 1 height: 2 width: -2 data: 1", "invalid extent -2"),
        ("shape { " + "dim: 1 " * 33 + "} data: 1", "33 axes; the maximum is 32"),
    ],
)
def test_a_blob_that_contradicts_itself_is_reported(save: Save, blob: str, reported: str) -> None:
    text = fault(save(f'layer {{ name: "ok" }} layer {{ name: "ip/1" blobs {{ data: 1 }} blobs {{ {blob} }} }}'))
    assert text.startswith(': layer "ip/1" blob 1: ')
    assert reported in text


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        (b"", "the file is empty"),
        (b"\x0a\x01a\x0b", "is damaged or not a caffemodel"),
        (b"\x0a\x03net", "the file contains no layers"),
        (b"\xa2\x06\x7f\x0a\x01a", "127 bytes are declared"),
        (b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "18446744073709551615 bytes are declared"),
        (b"\xff" * 20, "unterminated varint"),
        (b"\x00\x00\x00\x00", "field number 0"),
        (b"\x0b" * 300, "groups are nested too deeply"),
        (b"\xa2\x06\x00\x12\x00", "both `layer` and `layers`"),
    ],
)
def test_a_file_that_is_no_caffemodel(tmp_path: Path, data: bytes, reported: str) -> None:
    file = tmp_path / "m.caffemodel"
    file.write_bytes(data)
    assert reported in fault(file)


NO_WEIGHTS = "not weights. Use the .caffemodel or .h5 with the net's trained weights."


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ('name: "a"\nlayer { type: "ReLU" }\n', f"this is a text file, such as a prototxt, {NO_WEIGHTS}"),
        ("# \xe9\nlayers {\r\n\t}", f"this is a text file, such as a prototxt, {NO_WEIGHTS}"),
        ("net.caffemodel", f"this is a text file, such as a prototxt, {NO_WEIGHTS}"),
        ("\n<!DOCTYPE html><html>", "this is a web page, not weights. Download the file itself."),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n",
            "this is a Git LFS pointer, not weights. Fetch the file with `git lfs pull`.",
        ),
    ],
)
def test_a_text_file_is_reported_to_be_one(tmp_path: Path, text: str, reported: str, encoding: str) -> None:
    file = tmp_path / "m.caffemodel"
    file.write_bytes(text.encode(encoding))
    assert fault(file) == f": {reported}"


def test_a_text_file_instead_of_another_message_is_reported_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text("layer {}")
    reported = fault(file, read_net_binary)
    assert reported == ": this is a text file, not a caffemodel. Use upgrade_net_proto_text for a prototxt."
    reported = fault(file, read_blob)
    assert reported == ": this is a text file, not an array. Use a .binaryproto, such as compute_image_mean writes."


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert fault(tmp_path / "none") == ": this file does not exist"
    assert fault(tmp_path) == ": is a folder, not a file"


# HDF5


def test_hdf5_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "weights.caffemodel"
    with h5py.File(file, "w") as h5:
        h5["data/a/0"] = np.array([[1.5, 2.5]], np.float64)
        h5["data/fire2/squeeze/0"] = np.array([3], np.int32)
        h5.create_group("data/relu")
    layers = read_weights(file).layers
    assert sorted(layers) == ["a", "fire2/squeeze"]
    assert layers["a"][0].array.tolist() == [[1.5, 2.5]]
    assert layers["a"][0].array.dtype == np.float32
    assert layers["fire2/squeeze"][0].array.tolist() == [3]


def test_hdf5_leaves_out_what_another_layer_owns(tmp_path: Path) -> None:
    file = tmp_path / "m.h5"
    with h5py.File(file, "w") as h5:
        h5["data/a/1"] = np.array([2], np.float32)
    first, second = read_weights(file).layers["a"]
    assert (first.stored, first.array.size) == (False, 0)
    assert (second.stored, second.array.tolist()) == (True, [2])


def test_hdf5_loops_and_foreign_links_are_not_followed(tmp_path: Path) -> None:
    file, other = tmp_path / "m.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as h5:
        h5["0"] = np.array([1], np.float32)
    with h5py.File(file, "w") as h5:
        h5["data/a/0"] = np.array([2], np.float32)
        h5["data/a/loop"] = h5["data"]
        h5["data/b"] = h5py.ExternalLink(str(other), "/")
        h5["data/c"] = h5py.SoftLink("/data/a")
    assert list(read_weights(file).layers) == ["a"]


def make_no_data(h5: Any) -> None:
    h5["weights"] = np.zeros(3)


def make_text(h5: Any) -> None:
    h5["data/a/0"] = "text"


def make_huge(h5: Any) -> None:
    h5.create_dataset("data/a/0", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))


def make_sparse(h5: Any) -> None:
    h5["data/a/9999"] = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("make", "reported"),
    [
        (make_no_data, "no group `data`"),
        (make_text, 'layer "a" blob 0: expected numbers, got type object'),
        (make_huge, 'layer "a" blob 0: the shape declares 4398046511104 bytes, but fewer are stored'),
        (make_sparse, 'layer "a": blob number 9999 is out of range'),
    ],
)
def test_other_hdf5_files_are_refused(tmp_path: Path, make: Callable[[Any], None], reported: str) -> None:
    file = tmp_path / "m.h5"
    with h5py.File(file, "w") as h5:
        make(h5)
    assert reported in fault(file)


def test_a_damaged_hdf5_file_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.h5"
    write_weights(file, {"a": [np.ones((4, 4), np.float32)]})
    data = file.read_bytes()
    refused = 0
    for end in range(8, len(data), 97):
        file.write_bytes(data[:end])
        try:
            read_weights(file)
        except RistrettoError:
            refused += 1
    assert refused > 10


# writing


@pytest.mark.parametrize("name", ["out.caffemodel", "out.caffemodel.h5"])
def test_written_weights_come_back(tmp_path: Path, name: str) -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(5)]
    write_weights(tmp_path / name, {"z/1": arrays, "a": [np.array([0.1])]})
    layers = read_weights(tmp_path / name).layers
    assert layers["z/1"][0].array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert layers["z/1"][1].array.shape == ()
    assert layers["a"][0].array.tolist() == [0.10000000149011612]
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_caffemodel_takes_the_layers_of_the_net(tmp_path: Path) -> None:
    net = parse(
        'name: "n" layer { name: "d" type: "Data" include { phase: TRAIN } } layer { name: "d" type: "Data" }'
        'layer { name: "ip" type: "InnerProduct" bottom: "d" blobs { data: 9 } }',
        "NetParameter",
        "f",
    ).message
    write_weights(tmp_path / "m", {"extra": [np.zeros(1)], "ip": [np.ones((1, 2))]}, net=net)
    written = read_net_binary(tmp_path / "m")
    assert written.name == "n"
    assert [(layer.name, layer.type, len(layer.blobs)) for layer in written.layer] == [
        ("d", "Data", 0),
        ("ip", "InnerProduct", 1),
        ("extra", "", 1),
    ]
    assert list(written.layer[1].blobs[0].shape.dim) == [1, 2]
    assert list(written.layer[1].blobs[0].data) == [1, 1]
    assert list(written.layer[1].bottom) == ["d"]


def test_hdf5_has_a_group_for_each_layer_of_the_net(tmp_path: Path) -> None:
    net = parse('layer { name: "r" } layer { name: "ip" }', "NetParameter", "f").message
    write_weights(tmp_path / "m.h5", {"ip": [np.ones(2)]}, net=net)
    with h5py.File(tmp_path / "m.h5") as h5:
        assert sorted(h5["data"]) == ["ip", "r"]
        assert h5["data/ip/0"].dtype == np.float32


@pytest.mark.parametrize("name", ["", "/a", "a//b", "."])
def test_names_that_hdf5_cannot_hold_are_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(RistrettoError, match=r"Write a \.caffemodel"):
        write_weights(tmp_path / "m.h5", {name: [np.ones(1)]})
    assert list(tmp_path.iterdir()) == []


def test_weights_may_replace_the_file_they_are_read_from(tmp_path: Path) -> None:
    file = tmp_path / "m.caffemodel"
    write_weights(file, {"a": [np.array([1, 2])]})
    array = read_weights(file).layers["a"][0].array
    write_weights(file, {"a": [array + 1]})
    assert array.tolist() == [1, 2]
    assert read_weights(file).layers["a"][0].array.tolist() == [2, 3]


# single blobs, whole nets


def test_a_mean_file(tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    blob = new("BlobProto", num=1, channels=3, height=1, width=2, data=[1, 2, 3, 4, 5, 6])
    file.write_bytes(blob.SerializeToString())
    assert read_blob(file).tolist() == [[[[1, 2]], [[3, 4]], [[5, 6]]]]


def test_a_mean_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    file.write_bytes(b"\x08\x01\x10\x03\x18\x02\x20\x02")
    assert fault(file, read_blob) == ": the shape 1x3x2x2 has 12 values, but 0 are stored"


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xff", b"\x0a\x03net", b"\xa2\x06\x04\x0a\x02\xff\xfe", b"\xa2\x06\x03\xa2\x09\x00"]
)
def test_a_net_that_is_none(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "m"
    file.write_bytes(data)
    assert "Is it a complete caffemodel?" in fault(file, read_net_binary)
