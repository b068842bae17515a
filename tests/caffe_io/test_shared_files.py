"""Recorded cases of the original, and real files, where the shared folder is there."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import is_repeated, schema_files
from ristretto_cli.caffe_io.net_file import read_net, read_solver
from ristretto_cli.caffe_io.prototxt import parse, read, to_text
from ristretto_cli.caffe_io.upgrade import upgrade, upgrade_solver
from ristretto_cli.caffe_io.weights import read_blob, read_net_binary, read_weights
from ristretto_cli.errors import RistrettoError

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).resolve().parents[3] / "shared"))
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared folder at {SHARED}")


def cases(operation: str) -> list[Any]:
    """The recorded cases of an operation: folder and case.json."""
    found = []
    for file in sorted(SHARED.glob("golden/io/*/case.json")):
        case = json.loads(file.read_text())
        if case.get("operation") == operation:
            found.append(pytest.param(file.parent, case, id=file.parent.name))
    return found


@pytest.mark.parametrize(("folder", "case"), cases("upgrade_net_text"))
def test_nets_are_parsed_and_upgraded_as_by_the_original(folder: Path, case: dict[str, Any]) -> None:
    net = read_net(folder / "input.prototxt")
    assert to_text(net.message) == (folder / "expected.prototxt").read_text()
    assert net.complete == (case["exit_code"] == 0)
    assert len(net.layers) == len(net.message.layer)
    assert all(place.line > 0 for place in net.layers)


@pytest.mark.parametrize(("folder", "case"), cases("upgrade_net_binary"))
def test_binary_nets_are_upgraded_as_by_the_original(folder: Path, case: dict[str, Any]) -> None:
    result = upgrade(read_net_binary(folder / "input.caffemodel"))
    assert result.message == read_net_binary(folder / "expected.caffemodel")
    assert result.complete == (case["exit_code"] == 0)


@pytest.mark.parametrize(("folder", "case"), cases("upgrade_solver_text"))
def test_solvers_are_upgraded_as_by_the_original(folder: Path, case: dict[str, Any]) -> None:
    solver = upgrade_solver(read(folder / "input.prototxt", "SolverParameter").message)
    assert to_text(solver) == (folder / "expected.prototxt").read_text()


WRONG_TEXT = {
    "error_clip_required": "net.prototxt:12:3: ClipParameter: missing max",
    "error_layer_and_layers": "net.prototxt:7: the net has both `layer`",
    "error_text_enum": "net.prototxt:13:30: operation: SUB is not a value of EltwiseOp. Did you mean SUM?",
    "error_text_hex_float": "net.prototxt:12:24: scale: expected a decimal number, found 0x10",
    "error_text_unsigned_negative": "net.prototxt:12:37: num_output: expected a non-negative integer, found -",
    "error_solver_both_types": "solver.prototxt:7: the solver has both solver_type and type",
}


@pytest.mark.parametrize(("folder", "case"), cases("error"))
def test_what_the_original_refuses_in_the_text_is_refused_and_the_rest_is_read(
    folder: Path, case: dict[str, Any]
) -> None:
    solver, net = folder / "solver.prototxt", folder / "net.prototxt"
    if folder.name in WRONG_TEXT:
        with pytest.raises(RistrettoError) as caught:
            read_solver(solver) if solver.exists() else read_net(net)
        assert WRONG_TEXT[folder.name] in str(caught.value)
    else:
        assert "parse_error" not in case
        assert read_net(net).message.layer if net.exists() else read_solver(solver).message.ListFields()


@pytest.mark.parametrize(
    "file",
    sorted(SHARED.glob("reference/*/gpu/*.prototxt")),
    ids=lambda file: f"{file.parts[-3]}-{file.stem}",
)
def test_what_the_original_printed_is_printed_again_byte_for_byte(file: Path) -> None:
    text = file.read_text()
    assert to_text(parse(text, "NetParameter", "f").message) == text


CORE = schema_files()[0]
CORE_FIELDS = {f"{message.name}.{field.name}" for message in CORE.message_type for field in message.field}
CORE_VALUES = {(f"caffe.{enum.name}", value.number) for enum in CORE.enum_type for value in enum.value} | {
    (f"caffe.{message.name}.{enum.name}", value.number)
    for message in CORE.message_type
    for enum in message.enum_type
    for value in enum.value
}


def real_prototxts() -> list[dict[str, str]]:
    index = SHARED / "data" / "prototxt" / "index.tsv"
    if not index.exists():
        return []
    with index.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def fork_words(message: Any) -> list[str]:
    """The fields and enum values of a message, at any depth, that caffe.proto lacks."""
    found = []
    for field, value in message.ListFields():
        path = f"{message.DESCRIPTOR.name}.{field.name}"
        if path not in CORE_FIELDS:
            found.append(path)
        for one in value if is_repeated(field) else [value]:
            if field.message_type is not None:
                found += fork_words(one)
            elif field.enum_type is not None and (field.enum_type.full_name, one) not in CORE_VALUES:
                found.append(f"{path}: {one}")
    return found


def test_real_prototxts_are_read_or_their_errors_reported_with_place() -> None:
    rows = real_prototxts()
    assert len(rows) == 397
    known, of_forks = 0, 0
    for row in rows:
        file = SHARED / "data" / "prototxt" / row["file"]
        message = "NetParameter" if row["message"] == "?" else row["message"]
        known_good = bool(set("BR") & set(row["strict_ok(Bvlc,Ristretto,Intel)"]))
        # Its only fault is a comment that is not UTF-8, which the original does not mind.
        known_good |= row["bvlc_error"] == "not utf8"
        try:
            parsed = read(file, message)
        except RistrettoError as fault:
            assert not known_good, fault
            for line in str(fault).splitlines():
                assert line.startswith(str(file))
                place = line.removeprefix(str(file)).split(" ")[0]
                assert place.count(":") == 3 or " more errors" in line or " more times: " in line
            continue
        # What the original refuses may be read for what forks add to its schema, and for nothing else.
        if known_good:
            known += 1
        else:
            of_forks += 1
            assert fork_words(parsed.message), file
        assert parse(to_text(parsed.message), message, "f").message == parsed.message
        if message == "NetParameter":
            net = read_net(file)
            assert len(net.layers) == len(net.message.layer)
    assert (known, of_forks) == (264, 94)


def models(pattern: str) -> list[Path]:
    return sorted(SHARED.glob(f"data/models/*/{pattern}")) + sorted(SHARED.glob(f"golden/*/*/{pattern}"))


@pytest.mark.parametrize("folder", ["data/models", "golden/io", "golden/layers", "golden/ristretto", "golden/training"])
def test_caffemodels_hold_what_protobuf_reads_from_them(folder: str) -> None:
    files = sorted((SHARED / folder).glob("*/*.caffemodel"))
    assert files
    for file in files:
        expected = {}
        message = read_net_binary(file)
        for layer in [*message.layer, *message.layers]:
            holder = layer.layer if layer.DESCRIPTOR.name == "V1LayerParameter" and layer.HasField("layer") else layer
            if holder.blobs:
                expected[holder.name] = holder.blobs
        layers = read_weights(file).layers
        assert list(layers) == list(expected), file
        for name, blobs in expected.items():
            assert len(layers[name]) == len(blobs)
            for stored, blob in zip(layers[name], blobs, strict=True):
                legacy = (blob.num, blob.channels, blob.height, blob.width)
                assert stored.legacy == blob.HasField("num")
                assert stored.array.shape == (legacy if stored.legacy else tuple(blob.shape.dim))
                values = np.array(blob.double_data or blob.data, np.float32)
                assert np.array_equal(stored.array.ravel(), values, equal_nan=True)


def test_hdf5_weights_hold_what_h5py_reads_from_them() -> None:
    files = models("*.h5")
    read_layers = 0
    for file in files:
        with h5py.File(file) as h5:
            if "data" not in h5 or not isinstance(h5["data"], h5py.Group):
                continue
            layers = read_weights(file).layers
            for name, blobs in layers.items():
                read_layers += 1
                for index, blob in enumerate(blobs):
                    assert np.array_equal(blob.array, h5["data"][name][str(index)][()])
    assert read_layers >= 5


def test_a_real_mean_file() -> None:
    mean = read_blob(SHARED / "data" / "cifar10" / "mean.binaryproto")
    assert mean.shape == (1, 3, 32, 32)
    assert 100 < float(mean.mean()) < 140
