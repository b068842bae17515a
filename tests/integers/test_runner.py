"""Nets scored and run by their integer programs, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.cli.main import run as main
from tests.conftest import IDENTITY, LABELS, images

TRIMMED = """
    layer { name: "d" type: "Data" top: "data" top: "label" transform_param { scale: 0.00390625 }
            data_param { source: "db" backend: LMDB batch_size: 5 } }
    layer { name: "conv" type: "ConvolutionRistretto" bottom: "data" top: "conv"
            convolution_param { num_output: 2 kernel_size: 1 bias_term: false }
            quantization_param { bw_layer_in: 8 fl_layer_in: 7 bw_layer_out: %d fl_layer_out: %d
                bw_params: 8 fl_params: 6 } }
    layer { name: "fc" type: "FcRistretto" bottom: "conv" top: "fc"
            inner_product_param { num_output: 2 bias_term: false }
            quantization_param { bw_layer_in: 8 fl_layer_in: 6 bw_layer_out: 8 fl_layer_out: 5
                bw_params: 8 fl_params: 6 } }
    layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
    layer { name: "most" type: "ArgMax" bottom: "fc" top: "most" }
"""


@pytest.fixture
def files(workshop: Any) -> list[str]:
    workshop.database("db", images(), LABELS)
    return ["--model", workshop.net(TRIMMED % (8, 5)), "--weights", workshop.weights(IDENTITY)]


def score(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[dict[str, float], str]:
    """The scores that `test` gives, and its log."""
    assert main(["test", "--iterations", "2", "--json", "scores.json", *args]) == 0
    found = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    return {blob: values[0] for blob, values in found["outputs"].items()}, capsys.readouterr().err


def test_integers_score_what_floats_do(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    floats, _ = score(capsys, *files)
    integers, log = score(capsys, *files, "--arithmetic", "integer")
    assert integers == floats
    assert floats["accuracy"] == pytest.approx(0.8)
    assert "accuracy is 0.8 if of equal scores the first counts" in log


def test_rounding_down_loses_the_small_differences(workshop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    workshop.database("db", images(70, 60), LABELS)
    files = ["--model", workshop.net(TRIMMED % (3, 2)), "--weights", workshop.weights(IDENTITY)]
    # 70 / 256 and 60 / 256 are 1.09 and 0.94 quarters: 1 and 0 rounded down, both 1 to the nearest.
    nearest, log = score(capsys, *files, "--arithmetic", "integer")
    assert nearest["accuracy"] == 0
    assert "accuracy is 0.5 if of equal scores the first counts" in log  # the first class, half of the labels
    down, log = score(capsys, *files, "--arithmetic", "integer", "--rounding", "floor")
    assert down["accuracy"] == pytest.approx(0.8)
    assert "accuracy is 0.8 if" in log


def test_forward_writes_the_same_blobs(files: list[str]) -> None:
    assert main(["forward", *files, "--output", "floats.npz"]) == 0
    assert main(["forward", *files, "--output", "integers.npz", "--arithmetic", "integer"]) == 0
    floats, integers = np.load("floats.npz"), np.load("integers.npz")
    assert sorted(floats.files) == sorted(integers.files)
    for key in floats.files:
        assert floats[key].shape == integers[key].shape, key
        assert (floats[key] == integers[key]).all(), key


def test_forward_writes_chosen_blobs(files: list[str]) -> None:
    args = ["--output", "some.npz", "--arithmetic", "integer", "--blobs", "conv,loss"]
    assert main(["forward", *files, *args]) == 0
    assert sorted(np.load("some.npz").files) == ["@total_loss", "conv", "loss"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounding", "floor"], "--rounding has no effect with --arithmetic=float"),
        (["--affine_bits", "12"], "--affine_bits has no effect with --arithmetic=float"),
        (["--arithmetic", "integer", "--affine_bits", "99"], "99"),
        (["--arithmetic", "integer", "--rounding", "up"], "half_even"),
        (["--arithmetic", "fixed"], "integer"),
        (["--arithmetic", "integer", "--graph", "plain"], "--graph"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    files: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["test", *files, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_net_without_integer_form_is_refused(
    files: list[str], workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TRIMMED % (8, 5)
    sigmoid = 'layer { name: "s" type: "Sigmoid" bottom: "conv" top: "conv" }\n'
    at = text.index('layer { name: "fc"')
    workshop.net(text[:at] + sigmoid + text[at:])
    assert main(["test", *files, "--arithmetic", "integer"]) == 1
    assert 'layer "s" (Sigmoid): Sigmoid has no integer form, and the trimmed layer "fc"' in capsys.readouterr().err
