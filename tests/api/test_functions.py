"""The work of the commands as functions, beside what the commands print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.api import RistrettoError, evaluate, export, quantize
from ristretto_cli.cli.main import run
from tests.conftest import IDENTITY, LABELS, NET, images

BW = {"conv_params": 8, "fc_params": 8, "layer": 8}


@pytest.fixture
def files(workshop: Any) -> tuple[str, str]:
    workshop.database("test_db", images(), LABELS)
    workshop.database("train_db", images(), LABELS)
    return workshop.net(NET), workshop.weights(IDENTITY)


def test_quantize_writes_what_the_command_writes(files: tuple[str, str], workshop: Any) -> None:
    result = quantize(*files, bw=BW, iterations=2, calibration_iterations=1)
    assert result.baseline == pytest.approx(0.8)
    by_function = Path("quantized.prototxt").read_text(encoding="utf-8")
    args = ["--bw", ",".join(f"{name}={bits}" for name, bits in BW.items()), "--iterations", "2"]
    args += ["--model", files[0], "--weights", files[1], "--trimming_mode", "dynamic_fixed_point"]
    assert run(["quantize", *args, "--calibration_iterations", "1", "--model_quantized", "other.prototxt"]) == 0
    assert by_function == Path("other.prototxt").read_text(encoding="utf-8")


def test_options_pins_and_skips_arrive(files: tuple[str, str]) -> None:
    result = quantize(*files, bw={**BW, "fc.params": 4}, unsigned=True, fl_layer="range", write=False, iterations=1)
    assert not Path("quantized.prototxt").exists()
    assert "bw_params: 4" in result.prototxt()
    assert "unsigned_layer_in: true" in result.prototxt()
    kept = quantize(*files, bw={"conv_params": 8, "layer": 8}, skip=["fc"], write=False, iterations=1, noscore=True)
    assert "FcRistretto" not in kept.prototxt()


def test_evaluate_gives_the_scores(files: tuple[str, str]) -> None:
    assert evaluate(*files, iterations=2).of("accuracy") == pytest.approx(0.8)
    quantize(*files, bw=BW, iterations=2)
    assert evaluate("quantized.prototxt", iterations=2, arithmetic="integer").of("accuracy") == pytest.approx(0.8)
    compared = evaluate("quantized.prototxt", iterations=2, against=files, score="agreement")
    assert [output.score for output in compared.outputs][-1] == 1


def test_export_checks_what_it_writes(files: tuple[str, str]) -> None:
    quantize(*files, bw=BW, iterations=2)
    lines = export("integers", "out", model="quantized.prototxt", check=4)
    assert "4 images" in lines
    assert Path("out/net.json").is_file()


def test_arrays_replace_data(files: tuple[str, str], workshop: Any) -> None:
    data, labels = images().astype(np.float32) / 256, np.array(LABELS)
    for name in ("test_db", "train_db"):
        (workshop.folder / name).rename(workshop.folder / f"no_{name}")
    with pytest.raises(RistrettoError):
        evaluate(*files, iterations=2)
    (workshop.folder / "no_test_db").rename(workshop.folder / "test_db")
    found = evaluate(*files, iterations=2, arrays={"data": data[:, ::-1], "label": labels})
    assert found.of("accuracy") == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iteration": 3}, "Did you mean iterations"),
        ({"search": "all"}, "groups, smallest, layers"),
        ({"trimming_mode": "fixed"}, "Did you mean fixed_point"),
        ({"bw": {"conv": 8}}, "conv_params, fc_params, layer"),
    ],
)
def test_wrong_settings_are_refused(files: tuple[str, str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RistrettoError, match=message):
        quantize(*files, **settings)


def test_an_unknown_arithmetic_is_refused(files: tuple[str, str]) -> None:
    with pytest.raises(RistrettoError, match="float or integer"):
        evaluate(*files, arithmetic="fixed")
