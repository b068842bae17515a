"""Integer programs as JSON and arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
from ristretto_cli.exports.integers import read_program
from ristretto_cli.exports.names import file_stems, identifiers
from ristretto_cli.exports.program_exporter import MANIFEST
from ristretto_cli.integers.compiler import compile_program
from ristretto_cli.integers.interpreter import Interpreter
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.net_files import load_net
from tests.conftest import images

NET = """
    layer { name: "d" type: "Data" top: "data" top: "label"
            transform_param { scale: 0.0078125 mean_value: 100 mean_value: 20 }
            data_param { source: "db" backend: LMDB batch_size: 4 } }
    layer { name: "../conv" type: "ConvolutionRistretto" bottom: "data" top: "c"
            convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "uniform" min: -1 max: 1 } }
            quantization_param { bw_layer_in: 8 fl_layer_in: 7 bw_layer_out: 8 fl_layer_out: 6
                bw_params: 5 fl_params: 4 } }
    layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }
    layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: AVE global_pooling: true } }
    layer { name: "s" type: "Eltwise" bottom: "p" bottom: "c" top: "s" }
    layer { name: "q" type: "Permute" bottom: "s" top: "q" permute_param { order: 0 order: 2 order: 1 order: 3 } }
    layer { name: "cat" type: "Concat" bottom: "q" bottom: "q" top: "cat" concat_param { axis: 1 } }
    layer { name: "fc" type: "FcRistretto" bottom: "cat" top: "fc"
            inner_product_param { num_output: 2 weight_filler { type: "uniform" min: -1 max: 1 } }
            quantization_param { bw_layer_in: 9 fl_layer_in: 6 bw_layer_out: 16 fl_layer_out: 9
                bw_params: 12 fl_params: 10 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


@pytest.fixture
def request_(workshop: Any) -> ExportRequest:
    workshop.database("db", images())
    net = workshop.load(NET)
    arrays: dict[str, list[Any]] = {}
    for key, array in net.weights.items():
        arrays.setdefault(key.rpartition("/")[0], []).append(array)
    arrays["bn"] = [np.array([0.1, -0.3, 2.0]), np.array([0.5, 2.0, 7.0]), np.array([1.0])]
    return ExportRequest("net.prototxt", workshop.weights(arrays), "out", TEST)


def write(request: ExportRequest, **settings: Any) -> str:
    return EXPORTS.get("integers").write(ExportRequest(**{**vars(request), **settings}))


def test_what_is_read_back_is_the_program(request_: ExportRequest) -> None:
    line = write(request_, check=9)
    assert "9 images" in line
    assert "0 differ; the same class for 9 of 9" in line
    assert "loss (SoftmaxWithLoss) is left to the host: SoftmaxWithLoss has no integer form." in line
    net = load_net("net.prototxt", "net.caffemodel", NetState(TEST), rng=np.random.default_rng(0))
    program, again = compile_program(net).program, read_program(Path("out"))
    assert again.places == program.places
    assert [type(step) for step in again.steps] == [type(step) for step in program.steps]
    assert dict(again.outputs) == dict(program.outputs)
    assert again.rounding is ShiftRounding.HALF_EVEN


def test_vectors_are_the_integers_of_the_first_images(request_: ExportRequest) -> None:
    write(request_, vectors=6, rounding=ShiftRounding.FLOOR)
    found = json.loads(Path("out/net.json").read_text(encoding="utf-8"))
    arrays = {name: np.load(Path("out") / file) for name, file in found["vectors"].items()}
    program = read_program(Path("out"))
    assert program.rounding is ShiftRounding.FLOOR
    (entry,) = program.inputs
    pixels = images()[[*range(6)]].astype(np.float64)
    exact = np.rint((pixels - np.array([100, 20]).reshape(1, 2, 1, 1)) / 128 * 128).clip(-128, 127)
    assert (arrays[entry.place.name] == exact).all()
    results = Interpreter(program).run_integers({entry.place.name: arrays[entry.place.name]})
    assert (results["fc"] == arrays["fc"]).all()
    assert set(arrays) >= {place.name for place in program.blobs.values()}


def test_the_input_table_maps_pixels_to_integers(request_: ExportRequest) -> None:
    write(request_)
    found = json.loads(Path("out/net.json").read_text(encoding="utf-8"))
    table = np.load(Path("out") / found["inputs"][0]["pixels"]["table"])
    assert table.shape == (2, 256)
    assert table[0, [0, 100, 255]].tolist() == [-100, 0, 127]
    assert table[1, [0, 20, 255]].tolist() == [-20, 0, 127]


def test_the_manifest_names_sources_formats_and_files(request_: ExportRequest) -> None:
    write(request_)
    found = json.loads(Path("out", MANIFEST).read_text(encoding="utf-8"))
    assert found["format"] == "integers"
    assert found["model"]["file"] == "net.prototxt"
    assert len(found["weights"]["sha256"]) == 64
    conv, fc = found["layers"]
    assert (conv["weights"]["bits"], conv["weights"]["frac_bits"], conv["right_shift"]) == (5, 4, 5)
    assert (fc["weights"]["bits"], fc["right_shift"]) == (12, 7)
    assert 12 <= conv["accumulator"]["bits"] <= 16
    written = {str(file.relative_to("out")) for file in Path("out").rglob("*") if file.is_file()}
    assert set(found["files"]) == written - {MANIFEST}


def test_an_export_replaces_an_earlier_one_and_nothing_else(request_: ExportRequest) -> None:
    write(request_, vectors=2)
    write(request_)
    assert not Path("out/vectors").exists()
    Path("out/mine.txt").write_text("notes", encoding="utf-8")
    with pytest.raises(RistrettoError, match="holds other files"):
        write(request_)
    assert Path("out/mine.txt").read_text(encoding="utf-8") == "notes"
    assert sorted(path.name for path in Path().iterdir() if path.name.endswith(".ristretto")) == []


@pytest.mark.parametrize("damage", ["weights", "biases", "entries", "indices", "factors"])
def test_a_damaged_array_is_found_by_the_check(
    request_: ExportRequest, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    exporter: Any = EXPORTS.get("integers")
    original = type(exporter).print

    def damaging(self: Any, content: Any, path: Path) -> str:
        line: str = original(self, content, path)
        for file in (path / damage).iterdir():
            array = np.load(file)
            np.save(
                file,
                np.flip(array) if damage == "indices" else array.astype(np.int64) + (500 if damage == "biases" else 1),
            )
        return line

    monkeypatch.setattr(type(exporter), "print", damaging)
    with pytest.raises(RistrettoError, match=r"checked, and it is wrong: 5 images, .* differ, first in"):
        write(request_, check=5)


def test_names_of_files_are_safe_and_distinct() -> None:
    stems = file_stems(["conv2_1/x", "conv2_1_x", "../x", "x", "con", "", "Conv", "conv", "é" * 200])
    assert len({stem.lower() for stem in stems.values()}) == len(stems)
    assert all(stem and set(stem) <= set(map(chr, range(128))) and "/" not in stem for stem in stems.values())


def test_identifiers_are_valid_and_distinct() -> None:
    found = identifiers(["3x3", "a/b", "a_b", "int", "", "INT"], reserved={"int"})
    assert found["3x3"] == "n_3x3"
    assert len({name.lower() for name in found.values()}) == len(found)
    assert all(name.isidentifier() and name.lower() != "int" for name in found.values())
