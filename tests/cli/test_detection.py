"""A net that finds objects, under every command: AnnotatedData at its start, DetectionEvaluate at its end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.cli.main import run

NET = ("--model=net.prototxt", "--weights=net.caffemodel")
TEST = ("test", *NET, "--iterations=2")
MAP = pytest.approx(2 / 3, abs=1e-6)  # what tests/conftest.py says of its net of bright halves

pytestmark = pytest.mark.usefixtures("bright_halves")


def edit(old: str, new: str) -> None:
    text = Path("net.prototxt").read_text()
    assert text.count(old) == 1
    Path("net.prototxt").write_text(text.replace(old, new))


def lose_data(settings: str) -> None:
    """Take away the data, and let the layer's settings give their shape."""
    shutil.rmtree("test_db")
    start = "include { phase: TEST }\n        transform_param { scale: 0.00390625"
    edit(start, f"{start} resize_param {{ height: 1 width: 2 }} {settings}")


@pytest.mark.parametrize(
    ("flags", "printed"),
    [((), "0.666667"), (("--ap_version=MaxIntegral",), "0.666667"), (("--ap_version", "11point"), "0.636364")],
)
def test_test_prints_the_precision_of_each_class_and_their_mean(
    flags: tuple[str, ...], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run((*TEST, *flags)) == 0
    assert capsys.readouterr().out == f"Loss: 0\nclass1: {printed}\ndetection_eval = {printed}\n"


def test_test_writes_them_as_json() -> None:
    assert run((*TEST, "--json=found.json")) == 0
    found = json.loads(Path("found.json").read_text())
    assert found["ap_version"] == "Integral"
    assert found["outputs"] == {"detection_eval": [MAP]}
    assert found["parts"] == {"detection_eval": {"class1": MAP}}


def test_an_unknown_ap_version_is_a_wrong_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run((*TEST, "--ap_version=10point")) == 2
    assert "'10point' is not one of '11point', 'MaxIntegral', 'Integral'" in capsys.readouterr().err


# Trimmed weights: with 2 bits the 1 of conf becomes 0.5, so that 50/256 falls below the confidence of 0.1, and of
# 8 or 4 bits they lose nothing; with 1 bit they are all 0, and nothing is found.
@pytest.mark.parametrize("flags", [(), ("--score=detection_eval",), ("--score_goal=max",)])
def test_quantize_searches_by_it(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = ("quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--iterations=2", "--json=found.json")
    assert run((*command, "--bit_widths=8,2,1", "--ap_version=11point", *flags)) == 0
    found = json.loads(Path("found.json").read_text())
    assert (found["score"], found["score_goal"], found["ap_version"]) == ("detection_eval", "max", "11point")
    assert found["baseline"]["score"] == pytest.approx(7 / 11, abs=1e-6)
    assert found["baseline"]["parts"] == {"detection_eval": {"class1": pytest.approx(7 / 11, abs=1e-6)}}
    weights = found["groups"][0]
    assert (weights["part"], weights["bits"]) == ("CONV weights", 2)
    assert [(trial["bits"], round(trial["score"], 4)) for trial in weights["trials"]] == [
        (8, 0.6364),
        (2, 0.6364),
        (1, 0),
    ]
    types = [layer.type for layer in read_net("quantized.prototxt").message.layer]
    assert types.count("ConvolutionRistretto") == 2
    assert types[-1] == "DetectionEvaluate"
    lines = capsys.readouterr().out.splitlines()
    assert "Baseline 32bit float: 0.636364" in lines


def test_what_quantize_wrote_is_scored(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--iterations=2", "--bit_widths=8")
    assert run(command) == 0
    capsys.readouterr()
    assert run(("test", "--iterations=2")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "detection_eval = 0.666667"


def test_legacy_scores_by_it_too() -> None:
    command = ("quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--iterations=2", "--bit_widths=8")
    assert run((*command, "--legacy", "--json=found.json")) == 0
    found = json.loads(Path("found.json").read_text())
    assert (found["score"], found["baseline"]["score"]) == ("detection_eval", MAP)


def test_forward_writes_the_blobs_of_host_layers() -> None:
    assert run(("forward", *NET, "--output=out.npz")) == 0
    blobs = read_npz("out.npz")
    assert blobs["label"].tolist() == [[[[0, 1, 0, 0, 0, 0.5, 1, 0], [1, 1, 0, 0.5, 0, 1, 1, 0]]]]
    # One class with two objects; by image and score: right; right, wrong.
    assert blobs["detection_eval"].tolist() == [
        [[[-1, 1, 2, -1, -1], [0, 1, 200 / 256, 1, 0], [1, 1, 200 / 256, 1, 0], [1, 1, 100 / 256, 0, 1]]]
    ]


def test_export_ends_before_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("export", "--format=onnx", *NET, "--output=net.onnx")) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("inputs data, outputs found\n")
    assert "eval (DetectionEvaluate) is a host layer, computed after the graph, and is omitted" in captured.err
    model = onnx.load("net.onnx")
    assert [value.name for value in model.graph.output] == ["found"]


def test_a_net_without_anything_else_cannot_be_exported(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text("""
        layer { name: "d" type: "AnnotatedData" top: "data" top: "label"
                data_param { source: "test_db" backend: LMDB batch_size: 2 } }
        layer { name: "s" type: "Silence" bottom: "data" }
    """)
    assert run(("export", "--format=onnx", *NET, "--output=net.onnx")) == 1
    assert capsys.readouterr().err.endswith("net.prototxt: the net has no outputs that an ONNX graph can compute\n")


def test_extract_features_writes_boxes_only_to_databases(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("extract_features", "net.caffemodel", "net.prototxt")
    assert run((*command, "label,found", "label_db,found.npz", "2", "lmdb")) == 0
    assert read_npz("found.npz")["found"].shape == (2, 1, 4, 7)
    assert run((*command, "label", "label.npz", "2", "lmdb")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'ristretto: net.prototxt: the blob "label" is 1x1x?x8: its number of items is variable. '
        "Use a target that does not end in .npz."
    )


def test_summary_shows_what_depends_on_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("summary", "--model=net.prototxt", "--json=found.json")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:] for line in lines if line.startswith("eval ")] == [["detection_eval", "1x1x?x5"]]
    assert any(line.startswith("d ") and "label 1x1x?x8" in line for line in lines)
    layers = {layer["name"]: layer for layer in json.loads(Path("found.json").read_text())["layers"]}
    assert layers["eval"]["tops"] == [{"name": "detection_eval", "shape": [1, 1, None, 5]}]
    assert layers["eval"]["macs"] == 0


def test_summary_works_without_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    lose_data("mean_value: 0")
    assert run(("summary", "--model=net.prototxt")) == 0
    out = capsys.readouterr().out
    assert "data 2x3x1x2, label 1x1x?x8" in out
    assert "from resize_param and, as a guess, 3 channels" in out


def test_a_given_batch_leaves_the_boxes_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    edit('"test_db" backend: LMDB batch_size: 2', '"test_db" backend: LMDB batch_size: 1')
    assert run(("summary", "--model=net.prototxt", "--input_shape=data=4,1,1,2")) == 0
    assert "data 4x1x1x2, label 1x1x?x8" in capsys.readouterr().out


def test_time_and_draw_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("time", *NET, "--phase=TEST", "--iterations=2")) == 0
    assert any(line.split()[:1] == ["eval"] for line in capsys.readouterr().out.splitlines())
    assert run(("draw", "--model=net.prototxt", "--output=net.dot")) == 0


def test_time_without_data_has_no_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    lose_data("force_gray: true")
    assert run(("time", *NET, "--phase=TEST", "--iterations=1")) == 0
    assert "Zeros instead of data: data, label." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("num_classes: 2 overlap", "overlap", 'layer "eval" (DetectionEvaluate): num_classes is missing.'),
        (
            'bottom: "found" bottom: "label"',
            'bottom: "label" bottom: "found"',
            'layer "eval" (DetectionEvaluate): its first bottom is 1x1x?x8; expected 1x1x?x7',
        ),
        (
            "overlap_threshold: 0.5",
            'name_size_file: "none.txt"',
            'layer "eval" (DetectionEvaluate): name_size_file: none.txt: ',
        ),
        ('top: "detection_eval"', 'top: "detection_eval" loss_weight: 1', "cannot be a loss. Remove loss_weight."),
    ],
)
def test_bad_settings_are_reported_in_one_line(
    old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(old, new)
    assert run(TEST) == 1
    captured: Any = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err.splitlines()[-1]
    line = Path("net.prototxt").read_text().split('name: "eval"')[0].count("\n") + 1
    assert f"net.prototxt:{line}: " in captured.err


def test_a_layer_of_the_graph_can_read_the_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(TEST) == 0
    whole = capsys.readouterr().out
    edit('bottom: "found" bottom: "label"', 'bottom: "found" bottom: "label2"')
    edit(
        'layer { name: "eval"', 'layer { name: "p" type: "Power" bottom: "label" top: "label2" }\n layer { name: "eval"'
    )
    assert run(TEST) == 0
    assert capsys.readouterr().out == whole


def test_the_net_is_what_it_is_said_to_be() -> None:
    assert run(("forward", *NET, "--blobs=found", "--output=out.npz")) == 0
    rows = read_npz("out.npz")["found"].reshape(2, 2, 7)
    np.testing.assert_allclose(rows[0], [[0, 1, 200 / 256, 0, 0, 0.5, 1], [-1] * 7], atol=1e-6)


def test_widths_of_layers_are_searched_by_what_the_detections_are_made_from() -> None:
    command = ("quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--iterations=2", "--json=found.json")
    assert run((*command, "--search=layers")) == 0
    found = json.loads(Path("found.json").read_text())
    (chosen,) = [point for point in found["curve"] if point["chosen"]]
    assert chosen["passed"]
    assert chosen["size_kb"] <= min(point["size_kb"] for point in found["curve"] if point["passed"])


def test_detection_scores_by_eleven_points_whatever_other_outputs_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("net.prototxt").open("a") as stream:
        stream.write(
            'layer { name: "f" type: "DummyData" top: "f" top: "l" include { phase: TEST }\n'
            "  dummy_data_param { shape { dim: 1 dim: 2 } shape { dim: 1 } } }\n"
            'layer { name: "acc" type: "Accuracy" bottom: "f" bottom: "l" top: "acc" include { phase: TEST } }\n'
        )
    command = ("quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--iterations=2", "--bit_widths=16")
    assert run((*command, "--json=plain.json")) == 0
    assert run((*command, "--json=found.json", "--detection", "--gpu", "0,1,2,3")) == 0
    plain, found = (json.loads(Path(name).read_text()) for name in ("plain.json", "found.json"))
    assert plain["score"] == "acc"
    assert (found["score"], found["ap_version"]) == ("detection_eval", "11point")
    assert run((*command, "--json=found.json", "--detection", "--ap_version=MaxIntegral")) == 0
    assert json.loads(Path("found.json").read_text())["ap_version"] == "MaxIntegral"


def test_detection_of_a_net_that_detects_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    edit(
        'layer { name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "detection_eval"',
        'layer { name: "s" type: "Silence" bottom: "found" bottom: "label"',
    )
    command = ("quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--detection")
    assert run(command) == 1
    assert "--detection has no effect: the net has no DetectionEvaluate layer" in capsys.readouterr().err
    assert run((*command, "--score=acc")) == 2
