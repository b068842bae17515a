"""A small SSD detector, from scratch: trained, trimmed, fine-tuned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.cli.main import run

torch = pytest.importorskip("torch", reason="training needs torch")

SIZE = 24
CLASSES = 3

DATA = """
layer {{ name: "data" type: "AnnotatedData" top: "data" top: "label" include {{ phase: {phase} }}
         transform_param {{ scale: 0.01 mean_value: 100 {transform} }}
         data_param {{ source: "{database}" backend: LMDB batch_size: {batch} }} annotated_data_param {{ {crops} }} }}
"""
AUGMENTATION = """
resize_param { height: 24 width: 24 } mirror: true expand_param { prob: 0.3 max_expand_ratio: 1.2 }
distort_param { brightness_prob: 0.5 brightness_delta: 10 contrast_prob: 0.5 contrast_lower: 0.9 contrast_upper: 1.1 }
"""
CROPS = """
batch_sampler { max_sample: 1 max_trials: 1 }
batch_sampler { sampler { min_scale: 0.8 } sample_constraint { min_object_coverage: 0.9 } max_sample: 1 max_trials: 5 }
"""
LOSS = """
layer { name: "loss" type: "MultiBoxLoss" bottom: "loc" bottom: "conf" bottom: "priors" bottom: "label" top: "loss"
        include { phase: TRAIN } multibox_loss_param { num_classes: 3 code_type: CENTER_SIZE } }
"""
DETECTION = """
layer { name: "shape" type: "Reshape" bottom: "conf" top: "shape" include { phase: TEST }
        reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "softmax" type: "Softmax" bottom: "shape" top: "softmax" include { phase: TEST }
        softmax_param { axis: 2 } }
layer { name: "flat" type: "Flatten" bottom: "softmax" top: "flat" include { phase: TEST } }
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "flat" bottom: "priors" top: "found"
        include { phase: TEST } detection_output_param { num_classes: 3 code_type: CENTER_SIZE keep_top_k: 10
        nms_param { nms_threshold: 0.45 top_k: 20 } confidence_threshold: 0.01 } }
layer { name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "eval" include { phase: TEST }
        detection_evaluate_param { num_classes: 3 } }
"""
SOLVER = """
net: "{net}" base_lr: {rate} lr_policy: "fixed" type: "Adam" momentum: 0.9 momentum2: 0.999 max_iter: {iterations}
test_iter: 4 test_interval: {iterations} test_initialization: false snapshot_prefix: "{prefix}" random_seed: 1
display: 20
"""


def convolution(name: str, bottom: str, outputs: int, stride: int = 2) -> str:
    return f"""
        layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{
                num_output: {outputs} kernel_size: 3 pad: 1 stride: {stride} weight_filler {{ type: "msra" }} }} }}
    """


def stage(name: str, bottom: str, outputs: int) -> str:
    return (
        convolution(name, bottom, outputs) + f'layer {{ name: "{name}r" type: "ReLU" bottom: "{name}" top: "{name}" }}'
    )


def head(name: str, bottom: str, outputs: int) -> str:
    return (
        convolution(name, bottom, outputs, 1)
        + f"""
        layer {{ name: "{name}_p" type: "Permute" bottom: "{name}" top: "{name}_p"
                permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
        layer {{ name: "{name}_f" type: "Flatten" bottom: "{name}_p" top: "{name}_f" }}
    """
    )


def prior(name: str, bottom: str, size: int) -> str:
    return f"""
        layer {{ name: "{name}" type: "PriorBox" bottom: "{bottom}" bottom: "data" top: "{name}"
                prior_box_param {{ min_size: {size} variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }} }}
    """


def joined(name: str, bottoms: tuple[str, str], axis: int) -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "Concat" {read} top: "{name}" concat_param {{ axis: {axis} }} }}\n'


def detector() -> str:
    data = DATA.format(phase="TRAIN", database="train", batch=8, transform=AUGMENTATION, crops=CROPS)
    data += DATA.format(phase="TEST", database="test", batch=15, transform="", crops="")
    stages = stage("c1", "data", 8) + stage("c2", "c1", 12) + stage("c3", "c2", 16)
    heads = "".join(
        head(f"loc{i}", f"c{i}", 4) + head(f"conf{i}", f"c{i}", CLASSES) + prior(f"prior{i}", f"c{i}", size)
        for i, size in ((2, 7), (3, 11))
    )
    both = joined("loc", ("loc2_f", "loc3_f"), 1) + joined("conf", ("conf2_f", "conf3_f"), 1)
    both += joined("priors", ("prior2", "prior3"), 2)
    return data + stages + heads + both + LOSS + DETECTION


def pictures(seed: int, count: int) -> tuple[Any, list[Any]]:
    """Images (N, 3, 24, 24) of noise with red (1) and blue (2) squares, and their boxes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 140, (count, 3, SIZE, SIZE), dtype=np.uint8)
    boxes: list[Any] = []
    for image in images:
        side, label = int(rng.integers(6, 13)), int(rng.integers(1, CLASSES))
        x, y = rng.integers(0, SIZE - side, 2).tolist()
        image[:, y : y + side, x : x + side] = np.reshape((20, 20, 240) if label == 1 else (240, 20, 20), (3, 1, 1))
        boxes.append([(label, (x / SIZE, y / SIZE, (x + side) / SIZE, (y + side) / SIZE))])
    return images, boxes


@pytest.fixture
def detection(workshop: Any) -> Any:
    workshop.annotated("train", *pictures(1, 120))
    workshop.annotated("test", *pictures(2, 60))
    workshop.net(detector())
    return workshop


def solver(file: str, **values: Any) -> str:
    Path(file).write_text(SOLVER.format(**values))
    return f"--solver={file}"


def precision(*command: str) -> float:
    assert run((*command, "--json=result.json")) == 0
    found = json.loads(Path("result.json").read_text())
    if command[0] == "train":
        return float(found["tests"][0]["eval"][0])
    return float(found["outputs"]["eval"][0])


def test_a_detector_is_trained_trimmed_and_fine_tuned(detection: Any) -> None:
    first = solver("first.prototxt", net="net.prototxt", rate=0.005, iterations=200, prefix="first")
    trained = precision("train", first)
    assert trained > 0.9
    weights = "--weights=first_iter_200.caffemodel"
    assert precision("test", "--model=net.prototxt", weights, "--iterations=4") == pytest.approx(trained, abs=1e-6)

    widths = "--bw=conv_params=3,layer=8"
    quantize = ("quantize", "--model=net.prototxt", weights, "--trimming_mode=dynamic_fixed_point", widths)
    assert run((*quantize, "--iterations=4", "--model_quantized=trimmed.prototxt")) == 0
    types = [layer.type for layer in read_net("trimmed.prototxt").message.layer]
    assert types.count("ConvolutionRistretto") == 7
    assert {"MultiBoxLoss", "DetectionOutput", "DetectionEvaluate"} < {*types}
    trimmed = precision("test", "--model=trimmed.prototxt", weights, "--iterations=4")
    assert trimmed < trained - 0.05

    second = solver("second.prototxt", net="trimmed.prototxt", rate=0.002, iterations=80, prefix="second")
    tuned = precision("train", second, weights, "--round_to_nearest")
    assert tuned > trained - 0.2 * (trained - trimmed)


def test_calibration_omits_the_augmentation(detection: Any, caplog: pytest.LogCaptureFixture) -> None:
    weights = {
        name: [np.full(shape, 0.01), np.zeros(shape[0])]
        for name, shape in {
            **{"c1": (8, 3, 3, 3), "c2": (12, 8, 3, 3), "c3": (16, 12, 3, 3)},
            **{"loc2": (4, 12, 3, 3), "conf2": (3, 12, 3, 3), "loc3": (4, 16, 3, 3), "conf3": (3, 16, 3, 3)},
        }.items()
    }
    detection.weights(weights)
    command = ("quantize", "--model=net.prototxt", "--weights=net.caffemodel", "--trimming_mode=dynamic_fixed_point")
    assert run((*command, "--bw=conv_params=8,layer=8", "--noscore")) == 0
    said = "Calibrating without the augmentation of the training data: distort_param, expand_param, batch_sampler."
    assert said in caplog.messages


# ------------------------------------------------------------------ the loss under other commands

PLAIN = """
layer {{ name: "data" type: "AnnotatedData" top: "data" top: "label" transform_param {{ scale: 0.01 }}
         data_param {{ source: "test" batch_size: 4 backend: LMDB }} }}
layer {{ name: "loc" type: "Convolution" bottom: "data" top: "loc"
         convolution_param {{ num_output: 4 kernel_size: 8 stride: 8 }} }}
layer {{ name: "conf" type: "Convolution" bottom: "data" top: "conf"
         convolution_param {{ num_output: {classes} kernel_size: 8 stride: 8 }} }}
layer {{ name: "loc_p" type: "Permute" bottom: "loc" top: "loc_p"
         permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "conf_p" type: "Permute" bottom: "conf" top: "conf_p"
         permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "priors" type: "PriorBox" bottom: "loc" bottom: "data" top: "priors"
         prior_box_param {{ min_size: 9 }} }}
layer {{ name: "loss" type: "MultiBoxLoss" bottom: "loc_p" bottom: "conf_p" bottom: "priors" bottom: "label" {more}
         multibox_loss_param {{ num_classes: {classes} overlap_threshold: 0.3 }} }}
layer {{ name: "l2" type: "Reduction" bottom: "loc" top: "l2" loss_weight: 0.5
         reduction_param {{ operation: SUMSQ }} }}
"""
NET = ("--model=net.prototxt", "--weights=net.caffemodel")
TOP = 'top: "loss" loss_weight: 2'


def plain(detection: Any, more: str = TOP, classes: int = CLASSES) -> None:
    rng = np.random.default_rng(0)
    detection.net(PLAIN.format(more=more, classes=classes))
    shapes = {"loc": (4, 3, 8, 8), "conf": (classes, 3, 8, 8)}
    detection.weights({name: [rng.normal(0, 0.02, shape), np.zeros(shape[0])] for name, shape in shapes.items()})


def test_the_loss_has_the_same_value_and_gradients_everywhere(
    detection: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain(detection)
    assert run(("forward", *NET, "--output=plain.npz")) == 0
    assert run(("forward", *NET, "--backward", "--output=torch.npz")) == 0
    found, with_gradients = read_npz("plain.npz"), read_npz("torch.npz")
    for key in ("loss", "l2", "@total_loss"):
        np.testing.assert_allclose(found[key], with_gradients[key], rtol=1e-5)
    assert found["@total_loss"] == pytest.approx(2 * found["loss"] + 0.5 * found["l2"], rel=1e-6)
    assert {"diff:loc_p", "diff:conf_p", "diff:loc"} <= set(with_gradients)
    assert not {"diff:priors", "diff:label"} & set(with_gradients)
    for name in ("loc", "conf"):
        assert np.abs(with_gradients[f"pdiff:{name}/0"]).max() > 0

    capsys.readouterr()
    assert run(("test", *NET, "--iterations=1", "--json=result.json")) == 0
    tested = json.loads(Path("result.json").read_text())
    assert tested["loss"] == pytest.approx(float(found["@total_loss"]), rel=1e-5)
    assert tested["outputs"]["loss"] == [pytest.approx(float(found["loss"]), rel=1e-5)]
    assert run(("forward", *NET, "--blobs=loc", "--output=part.npz")) == 0
    assert set(read_npz("part.npz")) == {"loc", "@total_loss"}


def test_training_follows_the_loss(detection: Any) -> None:
    plain(detection)
    text = SOLVER.format(net="net.prototxt", rate=0.001, iterations=30, prefix="p").replace("test_iter: 4", "")
    text = text.replace("test_interval: 30 test_initialization: false", "") + "debug_info: true"
    Path("solver.prototxt").write_text(text)
    assert run(("train", "--solver=solver.prototxt", "--weights=net.caffemodel", "--json=result.json")) == 0
    trained = json.loads(Path("result.json").read_text())
    assert run(("forward", *NET, "--output=first.npz")) == 0
    assert trained["loss"] < float(read_npz("first.npz")["@total_loss"])


def test_quantize_may_be_judged_by_the_loss(detection: Any) -> None:
    plain(detection)
    command = ("quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--iterations=4", "--score=loss")
    assert run((*command, "--bit_widths=8,4", "--json=result.json")) == 0
    found = json.loads(Path("result.json").read_text())
    assert (found["score"], found["score_goal"]) == ("loss", "min")


@pytest.mark.parametrize(
    "command", [("test", *NET, "--iterations=1"), ("forward", *NET, "--backward", "--output=o.npz")]
)
def test_an_object_of_an_unknown_class_is_reported_with_the_layer(
    command: tuple[str, ...], detection: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain(detection, classes=2)
    assert run(command) == 1
    assert 'layer "loss" (MultiBoxLoss): the data have an object of class 2, but num_classes is 2.' in (
        capsys.readouterr().err
    )


def test_the_loss_needs_a_top(detection: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plain(detection, more="")
    assert run(("test", *NET, "--iterations=1")) == 1
    assert 'layer "loss" (MultiBoxLoss): expected 1 top, got 0' in capsys.readouterr().err
