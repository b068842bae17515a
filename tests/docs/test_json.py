"""The JSON of `quantize` has the keys that the documentation lists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli import __version__
from ristretto_cli.analysis.nets_without_data import build_without_data
from ristretto_cli.analysis.summary import summarize
from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.cli.main import run
from ristretto_cli.net.build import NetState

ROOT = Path(__file__).resolve().parents[2]
BY_LAYERS = {"minimize", "size_limit_kb", "bitops_limit", "distortion_iterations", "curve"}
NUMBERS = r"`(\w+)`"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ristretto_cli.demo.steps import unpack

    folder = tmp_path_factory.mktemp("json") / "digits"
    unpack(str(folder))
    return folder


def documented() -> dict[str, str]:
    """The keys of the table, each with the text of its row."""
    text = (ROOT / "docs" / "quantizing.md").read_text(encoding="utf-8")
    section = text.partition("\n## The JSON\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section, flags=re.MULTILINE)
    return {key: value for keys, value in rows for key in re.findall(NUMBERS, keys)}


def result(digits: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> dict[str, Any]:
    monkeypatch.chdir(digits)
    files = ["--model", "train_val.prototxt", "--weights", "digits.caffemodel", "--json", "result.json"]
    assert run(["quantize", *files, "--trimming_mode", "dynamic_fixed_point", *args]) == 0
    return dict(json.loads((digits / "result.json").read_text(encoding="utf-8")))


def test_a_search(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = result(digits, monkeypatch, "--iterations", "2", "--bit_widths", "8,4", "--calibration_iterations", "1")
    rows = documented()
    assert set(found) == set(rows) - BY_LAYERS
    assert (found["version"], found["ristretto"]) == (1, __version__)
    assert found["seconds"] > 0
    assert (found["calibration_images"], found["seed"]) == (None, None)
    named = {key: set(re.findall(NUMBERS, text)) for key, text in rows.items()}
    assert set(found["baseline"]) <= named["baseline"]
    for layer in found["layers"].values():
        assert {*layer, *layer["bits"]} == named["layers"]
    assert set(found["costs"]["float"]) == set(found["costs"]["quantized"])
    assert {*found["costs"], *found["costs"]["float"]} == named["costs"]
    for group in found["groups"]:
        assert {*group, *group["trials"][0]} == named["groups"]
    assert set(found["combined"]) == set(found["groups"][0]["trials"][0]) | {"worse_by"}


def test_costs_are_those_of_the_summary(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = result(digits, monkeypatch, "--bw", "conv_params=8,fc_params=4,layer=8", "--noscore")
    summary = summarize(build_without_data(read_net("quantized.prototxt"), NetState(TEST), {}))
    assert found["costs"]["quantized"]["parameter_bytes"] == summary.trimmed_bytes
    assert found["costs"]["quantized"]["bit_operations"] == summary.bit_operations
    assert found["costs"]["float"]["parameter_bytes"] == summary.float_bytes
    assert found["layers"]["ip1"]["bits"] == {"layer_in": 8, "weights": 4, "bias": 4, "layer_out": 8}
    assert set(found) == set(documented()) - BY_LAYERS  # without scores the keys are the same


def test_corrections_name_their_images_and_seed(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = ["--bw", "conv_params=4,fc_params=4,layer=8", "--noscore"]
    corrections = ["--weights_quantized", "q.caffemodel", "--calibration_images", "64", "--seed", "3"]
    found = result(digits, monkeypatch, *widths, *corrections)
    assert (found["calibration_images"], found["seed"]) == (64, 3)


def test_a_search_by_layers(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = result(digits, monkeypatch, "--search", "layers", "--iterations", "2", "--calibration_iterations", "1")
    assert set(found) == set(documented())
