"""`ristretto fold`, and `quantize --fold_batchnorm`, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.cli import fold, quantize
from ristretto_cli.cli import test as test_command
from ristretto_cli.cli.gflags import GflagsCommand

from ..conftest import IDENTITY, NET

NORMALIZED = NET.replace(
    '    layer { name: "fc"',
    '    layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }\n'
    '    layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }\n'
    '    layer { name: "sc" type: "Scale" bottom: "data" top: "unused" }\n'
    '    layer { name: "fc"',
).replace('bottom: "conv" top: "fc"', 'bottom: "relu" top: "fc"')
# means of 0 and 0.1, variances of 1 and 4, stored with a factor of 2
WEIGHTS = {**IDENTITY, "bn": [[0.0, 0.2], [2.0, 8.0], [2.0]], "sc": [[3.0, 3.0]]}
LEFT = 'layer "sc" (Scale) is not folded: its bottom "data" is written by "d" (Data); its top "unused" has no readers'
FILES = ("--model=net.prototxt", "--weights=net.caffemodel")
FIXED_POINT = (*FILES, "--trimming_mode=dynamic_fixed_point", "--iterations=2", "--calibration_iterations=2")


@pytest.fixture
def normalized(two_classes: Any) -> None:
    two_classes(weights=WEIGHTS).workshop.net(NORMALIZED)


def run(command: GflagsCommand, *flags: str) -> Result:
    return CliRunner().invoke(command, flags)


def names(file: str) -> list[str]:
    return [message.name for message in read_net(file).message.layer]


@pytest.mark.usefixtures("normalized")
def test_the_folded_net_is_written_with_its_weights_and_what_is_left_is_named() -> None:
    result = run(fold.command, *FILES)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Folded 1 BatchNorm into 1 layer.",
        f"net.prototxt:13: {LEFT}",
        "Written to folded.prototxt and folded.caffemodel",
    ]
    assert names("folded.prototxt") == ["d", "d", "conv", "relu", "sc", "fc", "acc", "loss"]
    weight, bias = (blob.array for blob in read_weights("folded.caffemodel").layers["conv"])
    np.testing.assert_allclose(weight.ravel(), [1, 0, 0, 0.5], rtol=1e-4)
    np.testing.assert_allclose(bias, [0, -0.05], atol=1e-5)
    assert Path("folded.prototxt").read_text().splitlines()[1] == "# Weights: folded.caffemodel"


@pytest.mark.usefixtures("normalized")
def test_the_folded_net_scores_as_the_net_with_the_weights_named_in_its_header() -> None:
    Path("out").mkdir()
    assert run(fold.command, *FILES, "--model_folded=out/f.prototxt", "--weights_folded=w.h5").exit_code == 0
    scores = []
    for flags in (FILES, ("--model=out/f.prototxt",)):
        result = run(test_command.command, *flags, "--iterations=2", "--json=-")
        assert result.exit_code == 0, result.output
        scores.append(json.loads(result.stdout)["outputs"])
    assert list(scores[0]) == list(scores[1]) == ["accuracy", "loss", "unused"]
    for blob, means in scores[0].items():
        np.testing.assert_allclose(scores[1][blob], means, atol=1e-5)


def test_no_database_is_needed_where_the_shape_is_given(workshop: Any) -> None:
    workshop.net(NORMALIZED)
    workshop.weights(WEIGHTS)
    failed = run(fold.command, *FILES)
    assert failed.exit_code != 0
    assert "--input_shape=data=N,C,H,W" in str(failed.exception)
    assert run(fold.command, *FILES, "--input_shape=data=5,2,1,1", "--input_shape=label=5").exit_code == 0


@pytest.mark.usefixtures("normalized")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model_folded=net.prototxt",), "net.prototxt: is an input of this command"),
        (("--weights_folded=net.caffemodel",), "net.caffemodel: is an input of this command"),
        (("--model_folded=f", "--weights_folded=f"), "f: is given for two outputs"),
        (("--weights_folded=none/w.caffemodel",), "does not exist"),
        (("--input_shape=nothing=1,2",), '"nothing" is not an input of the net'),
    ],
)
def test_files_that_cannot_be_written_and_unknown_inputs_are_refused(flags: tuple[str, ...], message: str) -> None:
    result = run(fold.command, *FILES, *flags)
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert not Path("folded.prototxt").exists()


@pytest.mark.usefixtures("normalized")
def test_layers_without_weights_are_an_error_unless_they_are_allowed() -> None:
    stored = read_weights("net.caffemodel").layers
    from ristretto_cli.caffe_io.weights import write_weights

    write_weights("less.caffemodel", {k: [blob.array for blob in v] for k, v in stored.items() if k != "fc"})
    flags = ("--model=net.prototxt", "--weights=less.caffemodel")
    refused = run(fold.command, *flags)
    assert 'layer "fc" has no weights' in str(refused.exception)
    assert run(fold.command, *flags, "--allow_missing_weights").exit_code == 0
    assert list(read_weights("folded.caffemodel").layers) == ["conv", "sc"]


# -- quantize --fold_batchnorm


@pytest.mark.usefixtures("normalized")
def test_quantize_folds_first_and_gives_biases_16_bits() -> None:
    result = run(quantize.command, *FIXED_POINT, "--fold_batchnorm", "--json=found.json")
    assert result.exit_code == 0, result.output
    assert "Folded 1 BatchNorm into 1 layer." in result.stdout
    assert "Folded weights written to quantized.caffemodel" in result.stdout
    assert "bn" not in names("quantized.prototxt")
    conv = read_net("quantized.prototxt").message.layer[2].quantization_param
    assert (conv.bw_bias, conv.fl_bias) == (16, 19)  # the largest bias is 0.05
    found = json.loads(Path("found.json").read_text())
    assert found["combined"]["bits"]["bias"] == 16
    assert found["folded"]["weights"] == "quantized.caffemodel"
    assert found["folded"]["layers"] == [{"name": "bn", "type": "BatchNorm", "into": "conv"}]
    assert [each["name"] for each in found["folded"]["left"]] == ["sc"]
    # `ristretto test` finds the folded weights, and scores as the search did.
    tested = run(test_command.command, "--iterations=2", "--json=-")
    scores = json.loads(tested.stdout)["outputs"]
    assert scores["accuracy"] == pytest.approx([found["combined"]["score"]], abs=1e-7)


@pytest.mark.usefixtures("normalized")
def test_the_width_of_biases_and_the_weights_file_can_be_chosen() -> None:
    widths = "--bw=conv_params=8,fc_params=8,layer=8,bias=7"
    flags = ("--fold_batchnorm", "--weights_folded=f.h5", widths, "--model_quantized=q.prototxt")
    assert run(quantize.command, *FIXED_POINT, *flags).exit_code == 0
    assert Path("q.prototxt").read_text().splitlines()[1] == "# Weights: f.h5"
    assert read_net("q.prototxt").message.layer[2].quantization_param.bw_bias == 7
    assert "conv" in read_weights("f.h5").layers


@pytest.mark.usefixtures("normalized")
@pytest.mark.parametrize("mode", ["minifloat", "integer_power_of_2_weights"])
def test_other_modes_fold_without_a_format_for_biases(mode: str) -> None:
    result = run(quantize.command, *FILES, f"--trimming_mode={mode}", "--iterations=2", "--fold_batchnorm")
    assert result.exit_code == 0, result.output
    text = Path("quantized.prototxt").read_text()
    assert "bw_bias" not in text
    assert "BatchNorm" not in text


@pytest.mark.usefixtures("normalized")
def test_a_dry_run_with_folding_writes_nothing() -> None:
    lists = [run(quantize.command, *FIXED_POINT, "--dry_run", *more).stdout for more in ((), ("--fold_batchnorm",))]
    assert lists[0] == lists[1] != ""
    assert not Path("quantized.caffemodel").exists()


def test_a_net_with_nothing_to_fold_says_so(two_classes: Any, caplog: pytest.LogCaptureFixture) -> None:
    two_classes()
    result = run(quantize.command, *FIXED_POINT, "--fold_batchnorm")
    assert "No layer was folded." in result.stdout
    assert "--bw bias" not in caplog.text


@pytest.mark.usefixtures("normalized")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--weights_folded=w.caffemodel",), "--weights_folded has no effect without --fold_batchnorm"),
        (("--fold_batchnorm", "--legacy"), "--fold_batchnorm has no effect with --legacy"),
        (("--fold_batchnorm", "--weights_folded=net.caffemodel"), "net.caffemodel: is an input of this command"),
        (("--fold_batchnorm", "--model_quantized=net.prototxt"), "net.prototxt: is an input of this command"),
    ],
)
def test_flags_that_contradict_folding_are_refused(flags: tuple[str, ...], message: str) -> None:
    result = run(quantize.command, *FIXED_POINT, *flags)
    assert result.exit_code != 0
    assert message in result.output + str(result.exception)
