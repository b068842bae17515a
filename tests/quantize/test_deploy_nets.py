"""Deploy nets, which have no data layers: quantized and scored on images and arrays of the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.cli.main import run

from ..conftest import LABELS, NET, images

FROM_CONV = NET[NET.index('    layer { name: "conv"') : NET.index('    layer { name: "acc"')]
INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 4 dim: 2 dim: 1 dim: 1 } } }\n'
DEPLOY = INPUT + FROM_CONV + 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
# The same for gray images of two pixels.
GRAY = (
    "input: 'data' input_dim: 4 input_dim: 1 input_dim: 1 input_dim: 2\n"
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
    "convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }\n"
    'layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" '
    "inner_product_param { num_output: 2 bias_term: false } }\n"
    'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
)
GRAY_WEIGHTS = {"conv": [[[[[1]]]]], "fc": [[[1, 0], [0, 1]]]}
MODE = "--trimming_mode=dynamic_fixed_point"
QUANTIZE = ["quantize", "--model=net.prototxt", "--weights=net.caffemodel", MODE, "--json=found.json"]
TEST = ["test", "--model=net.prototxt", "--weights=net.caffemodel"]
SCALE = "--input_scale=0.00390625"


@pytest.fixture
def deploy(two_classes: Any) -> Any:
    """A deploy net of two classes, whose ten images are in x.npz."""
    files = two_classes()
    files.workshop.net(DEPLOY)
    np.savez("x.npz", data=images().astype(np.float32) / 256)
    return files.workshop


@pytest.fixture
def gray(workshop: Any) -> Any:
    """A deploy net of two classes, and ten gray images of two pixels."""
    workshop.net(GRAY)
    workshop.weights(GRAY_WEIGHTS)
    Path("im").mkdir()
    for i, image in enumerate(images()):
        cv2.imwrite(f"im/{i}.png", image.reshape(1, 2))
    Path("list.txt").write_text("".join(f"im/{i}.png {label}\n" for i, label in enumerate(LABELS)))
    return workshop


def found() -> Any:
    found = json.loads(Path("found.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


def test_arrays_calibrate_and_score_a_deploy_net(deploy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*QUANTIZE, "--input=x.npz"]) == 0
    data = found()
    assert (data["score"], data["baseline"]["score"]) == ("agreement:prob", 1)
    assert data["combined"]["bits"] == {"conv_params": 2, "fc_params": 2, "layer": 4}
    assert data["layers"]["conv"]["max_in"] == pytest.approx(200 / 256)
    # One pass is three batches of four images, of which the last two are the first ones again.
    assert (data["iterations"], data["calibration_iterations"]) == (3, 3)
    log = capsys.readouterr().err
    assert "Scoring: 3 batches of 4 instead of 50 are one pass over the data." in log
    assert "Scoring: the last batch is completed with the first 2 of the 10 images." in log
    assert "has no data layers for TRAIN" not in log


@pytest.mark.parametrize("source", ["im", "list.txt"])
def test_images_do_the_same(gray: Any, capsys: pytest.CaptureFixture[str], source: str) -> None:
    assert run([*QUANTIZE, f"--images={source}", SCALE]) == 0
    by_images = found()
    np.savez("x.npz", data=images().reshape(10, 1, 1, 2).astype(np.float32) / 256)
    assert run([*QUANTIZE, "--input=x.npz"]) == 0
    assert by_images == found()
    assert by_images["combined"]["bits"] == {"conv_params": 2, "fc_params": 2, "layer": 4}
    capsys.readouterr()
    against = ["test", f"--images={source}", SCALE, "--against=net.prototxt", "--iterations=2", "--score=agreement"]
    assert run(against) == 0
    assert capsys.readouterr().out.splitlines() == ["Loss: 0", "agreement:prob = 1"]


def test_preprocessing_reaches_the_net(gray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--images=im", "--raw_scale=1", "--mean=0.1", "--input_scale=10", "--iterations=1", "--json=scores.json"]
    assert run([*TEST, *flags]) == 0
    scores = json.loads(Path("scores.json").read_text())["outputs"]["prob"]
    expected = 1 / (1 + np.exp(-10 * 150 / 255))
    assert scores[:2] == pytest.approx([expected, 1 - expected])


def test_given_widths_without_scoring(deploy: Any) -> None:
    assert run([*QUANTIZE, "--input=x.npz", "--bw=conv_params=8,fc_params=8,layer=8", "--noscore"]) == 0
    assert found()["layers"]["conv"]["max_in"] == pytest.approx(200 / 256)
    assert "bw_params: 8" in Path("quantized.prototxt").read_text()


def test_a_dry_run_lists_what_one_pass_needs(deploy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [flag for flag in QUANTIZE if not flag.startswith("--json")]
    assert run([*flags, "--input=x.npz", "--bit_widths=8", "--dry_run"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "the float net, 3 iterations",
        "calibration on TEST data, 3 iterations",
    ]


def test_arrays_may_replace_the_data_of_data_layers(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    np.savez("x.npz", data=images()[:5].astype(np.float32) / 256, label=np.array(LABELS[:5]))
    assert run([*TEST, "--input=x.npz"]) == 0
    assert "accuracy = 0.8" in capsys.readouterr().out
    assert run([*QUANTIZE, "--input=x.npz"]) == 0
    assert (found()["score"], found()["baseline"]["score"]) == ("accuracy", pytest.approx(0.8))
    assert "calibrating on TEST" not in capsys.readouterr().err


def test_inputs_that_are_the_same_for_each_batch(deploy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    size = 'layer { name: "s" type: "Input" top: "size" input_param { shape { dim: 4 dim: 2 } } }\n'
    both = 'layer { name: "sum" type: "Eltwise" bottom: "fc" bottom: "size" top: "sum" }\n'
    deploy.net(
        size
        + DEPLOY.replace('bottom: "fc" top: "prob"', 'bottom: "sum" top: "prob"').replace(
            'layer { name: "prob"', both + 'layer { name: "prob"'
        )
    )
    np.savez("x.npz", data=images().astype(np.float32) / 256, size=np.zeros((4, 2)))
    assert run([*QUANTIZE, "--input=x.npz"]) == 0
    assert found()["combined"]["bits"] == {"conv_params": 2, "fc_params": 2, "layer": 4}


NO_DATA = (
    'net.prototxt:1: layer "in" (Input): there is no data for data. Give arrays with --input x.npz: '
    "data (Nx2x1x1); or replace it with a data layer such as Data."
)


@pytest.mark.parametrize("command", [QUANTIZE, TEST])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], NO_DATA),
        (["--images=im"], "--images has no effect: no input is left that takes images (N, 1 or 3, H, W); inputs: data"),
        (
            ["--input=bad.npz"],
            '"data" of --input has the shape 10x2x1; expected Nx2x1x1. N is any number of images; '
            "for another size of an Input layer use test --input_shape.\n"
            'ristretto: net.prototxt: "lable" of --input is not an input of the net. Inputs: data.',
        ),
    ],
)
def test_data_that_do_not_fit(
    deploy: Any, capsys: pytest.CaptureFixture[str], command: list[str], flags: list[str], message: str
) -> None:
    Path("im").mkdir()
    cv2.imwrite("im/a.png", np.zeros((1, 2), np.uint8))
    np.savez("bad.npz", data=np.zeros((10, 2, 1)), lable=np.zeros(10))
    assert run([*command, *flags]) == 1
    assert message in capsys.readouterr().err
    assert not Path("quantized.prototxt").exists()


def test_a_net_for_images_says_both_ways_to_give_data(gray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gray.net(GRAY + 'layer { name: "s" type: "Input" top: "size" input_param { shape { dim: 1 dim: 3 } } }\n')
    assert run(QUANTIZE) == 1
    faults = capsys.readouterr().err.splitlines()[-2:]
    assert [fault.partition("there is")[2] for fault in faults] == [
        " no data for data. Give images with --images LIST_OR_FOLDER, or arrays with --input x.npz: data (Nx1x1x2); "
        "or replace it with a data layer such as Data.",
        " no data for size. Give arrays with --input x.npz: size (Nx3); or replace it with a data layer such as Data.",
    ]
    assert run([*QUANTIZE, "--images=im"]) == 1
    assert "there is no data for size." in capsys.readouterr().err


def test_images_and_data_layers_exclude_each_other(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    cv2.imwrite("a.png", np.zeros((1, 2), np.uint8))
    assert run([*QUANTIZE, "--images=a.png"]) == 1
    assert '--images has no effect: layer "d" (Data) reads data of its own.' in capsys.readouterr().err
    np.savez("x.npz", data=images().astype(np.float32))
    assert run([*TEST, "--input=x.npz"]) == 1
    message = "--input gives only some of its tops; label would be those of other images. Give all of them, or none."
    assert message in capsys.readouterr().err


def test_all_arrays_have_the_same_number_of_images(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    np.savez("x.npz", data=images().astype(np.float32), label=np.array(LABELS[:9]))
    assert run([*TEST, "--input=x.npz"]) == 1
    assert '"label" of --input has 9 images, but another array has 10.' in capsys.readouterr().err


@pytest.mark.parametrize("command", [QUANTIZE, TEST])
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--mean=3", "--mean has no effect without --images"),
        ("--resize=4,4", "--resize has no effect without --images"),
        ("--resize=4", '"4": expected a height and a width, such as 256,256'),
        ("--resize=0,4", '"0,4": expected a height and a width'),
        ("--channel_swap=2,1,1", '"2,1,1": expected each channel once, such as 2,1,0'),
        ("--channel_swap=a", '"a": expected whole numbers'),
        ("--raw_scale=inf", "is not a finite number"),
    ],
)
def test_flags_without_effect_or_meaning(
    two_classes: Any, capsys: pytest.CaptureFixture[str], command: list[str], flag: str, message: str
) -> None:
    two_classes()
    assert run([*command, flag]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--images=im", "--input=x.npz"])
def test_legacy_reads_data_layers_only(deploy: Any, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert run([*QUANTIZE, "--legacy", flag]) == 2
    assert f"{flag.partition('=')[0]} has no effect with --legacy" in capsys.readouterr().err


def test_a_net_without_a_softmax_asks_for_a_score(deploy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    deploy.net(INPUT + FROM_CONV)
    assert run([*QUANTIZE, "--input=x.npz"]) == 1
    assert "Compare it with its float net by --score agreement (classes) or --score sqnr" in capsys.readouterr().err
    assert run([*QUANTIZE, "--input=x.npz", "--score=sqnr"]) == 0
    assert found()["score"] == "sqnr:fc"
