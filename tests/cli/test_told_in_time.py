"""What a message says of layers, files and folders that are not where the net expects them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.named_weights import named_weights
from ristretto_cli.caffe_io.weights import write_weights
from ristretto_cli.cli.main import run

from .conftest import QUANTIZE, TEST, Job

Fault = Callable[..., str]


@pytest.fixture
def fault(job: Job, capsys: pytest.CaptureFixture[str]) -> Fault:
    """Runs a command that has to fail: what it says."""

    def call(*args: str) -> str:
        assert run(args) == 1
        return capsys.readouterr().err

    return call


# -- layers of another phase, level or stage

CONV = 'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"'


@pytest.mark.parametrize(
    ("rule", "flags", "said"),
    [
        ("include { phase: TRAIN }", (), "only in phase TRAIN; this net is for phase TEST, level 0"),
        ("exclude { phase: TEST }", (), "not in phase TEST; this net is for phase TEST, level 0"),
        (
            'include { stage: "s0" }',
            ("--stage=x",),
            'only in stage "s0"; this net is for phase TEST, level 0, stage "x"',
        ),
        ("include { min_level: 2 max_level: 3 }", (), "only in levels from 2 and levels up to 3; this net is"),
        (
            'include { phase: TRAIN } include { not_stage: "x" phase: TRAIN }',
            (),
            'only in phase TRAIN or phase TRAIN and nets without stage "x"; this net is',
        ),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_a_layer_that_another_state_has_is_named_with_its_rules(
    fault: Fault, job: Job, rule: str, flags: tuple[str, ...], said: str, in_place: bool
) -> None:
    job.edit(CONV, f"{CONV} {rule}")
    if in_place:
        job.insert('layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }', 3)
    err = fault(*TEST, *flags)
    reader = 'net.prototxt:4: layer "relu" (ReLU)' if in_place else 'net.prototxt:4: layer "ip" (InnerProduct)'
    assert f'{reader}: its bottom "conv" is produced by layer "conv" (net.prototxt:3), which is {said}' in err
    assert "up" not in err.replace("up to", "")
    assert err.count("\nristretto: ") + err.startswith("ristretto: ") == 1  # readers of readers are not listed


def test_a_layer_below_its_reader_is_to_move_up(fault: Fault, job: Job) -> None:
    lines = (job.folder / "net.prototxt").read_text().splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    job.write("net.prototxt", "\n".join(lines))
    assert 'is produced only later, by layer "conv" (net.prototxt:4). Move that layer up' in fault(*TEST)


def test_an_error_of_a_test_net_names_it_and_the_stage_that_it_lacks(fault: Fault, job: Job) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    job.edit(CONV, f'{CONV} include {{ stage: "s0" }}')
    job.write("s", 'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1 test_iter: 1 test_interval: 1 ')
    err = fault("train", "--solver=s", "--stage=s0")
    assert 'which is only in stage "s0"; this net is for phase TEST, level 0. This is test net #0. stage "s0"' in err
    assert "of the training net is not set for it: set test_state { } in the solver" in err
    job.write("s", (job.folder / "s").read_text() + 'test_state { stage: "s0" } snapshot_prefix: "x"')
    assert run(["train", "--solver=s", "--stage=s0"]) == 0


# -- types of other forks


def test_an_unknown_type_is_reported_before_its_settings(fault: Fault, job: Job) -> None:
    job.insert(
        'layer { crop_center_param { crop_size: 1 } more: 1 name: "cc" type: "CropCenter" bottom: "ip" top: "cc" }', 4
    )
    assert fault("summary", "--model=net.prototxt") == (
        'ristretto: net.prototxt:5:9: layer "cc" has the unknown type "CropCenter", and crop_center_param is unknown, '
        "too. It may be a layer of a fork of Caffe that is not supported.\n"
    )


def test_a_misspelled_type_and_a_misspelled_setting(fault: Fault, job: Job) -> None:
    job.edit('type: "InnerProduct"', 'type: "InerProduct"')
    job.edit("inner_product_param", "iner_product_param")
    assert "Did you mean InnerProduct?" in fault("summary", "--model=net.prototxt")
    job.edit('type: "InerProduct"', 'type: "InnerProduct"')
    err = fault("summary", "--model=net.prototxt")
    assert 'unknown field "iner_product_param" in LayerParameter. Did you mean inner_product_param?' in err
    job.edit('type: "Data"', 'type: "Data" dat_param { }')
    assert 'unknown field "dat_param" in LayerParameter' in fault("summary", "--model=net.prototxt")


def test_a_prototxt_in_utf_16(fault: Fault, job: Job) -> None:
    job.write("net.prototxt", (job.folder / "net.prototxt").read_text().encode("utf-16"))
    assert "net.prototxt: the file begins with the byte order mark of UTF-16. Save it as UTF-8" in fault(*TEST)


# -- weights of other nets


def test_the_layers_of_a_file_are_listed_once(fault: Fault, job: Job) -> None:
    write_weights(job.folder / "net.caffemodel", {f"other{i:02}": [np.zeros(1)] for i in range(30)})
    err = fault(*TEST)
    assert [err.count(f'layer "{name}" has no weights') for name in ("conv", "ip")] == [1, 1]
    assert err.count("other17") == 1
    assert len(err) < 700


def test_of_many_layers_without_weights_thirty_are_listed(fault: Fault, job: Job) -> None:
    text = 'layer { name: "x" type: "Input" top: "b0" input_param { shape { dim: 1 dim: 2 } } }\n'
    for i in range(100):
        text += f'layer {{ name: "b{i + 1}" type: "InnerProduct" bottom: "b{i}" top: "b{i + 1}" '
        text += "inner_product_param { num_output: 2 } }\n"
    job.write("net.prototxt", text)
    lines = fault("forward", "--model=net.prototxt", "--weights=net.caffemodel", "--output=o.npz").splitlines()
    assert len(lines) == 30
    assert 'layer "b30" and 70 more layers have no weights in net.caffemodel' in lines[-1]


# -- paths


@pytest.mark.parametrize("where", ["above", "beside the net", "below"])
def test_the_folder_from_which_a_database_exists_is_told(
    fault: Fault, job: Job, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    root, model = job.folder, "net.prototxt"
    if where == "above":
        (root / "a/b").mkdir(parents=True)
        monkeypatch.chdir(root / "a/b")
        model = "../../net.prototxt"
    elif where == "beside the net":
        (root.parent / "other").mkdir()
        monkeypatch.chdir(root.parent / "other")
        model = str(root / "net.prototxt")
    else:
        monkeypatch.chdir(root.parent)
        (root.parent / "net.prototxt").write_text((root / "net.prototxt").read_text())
    err = fault("test", f"--model={model}", f"--weights={root}/net.caffemodel")
    assert f"data_param.source db does not exist. It exists in {root}: run the command there" in err


def test_a_database_that_is_nowhere_is_not_looked_for_in_vain(fault: Fault, job: Job) -> None:
    job.edit('source: "db"', 'source: "no/such/db"')
    err = fault(*TEST)
    assert "data_param.source no/such/db does not exist. Relative paths start at the current folder." in err


def test_the_folder_of_a_mean_file_is_told_too(fault: Fault, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.edit("batch_size: 2 backend: LMDB }", 'batch_size: 2 backend: LMDB } transform_param { mean_file: "m/mean" }')
    (job.folder / "x/m").mkdir(parents=True)
    (job.folder / "x/m/mean").write_bytes(new("BlobProto").SerializeToString())
    assert f"mean_file m/mean does not exist. It exists in {job.folder / 'x'}" in fault(*TEST)


# -- images


def encoded(image: np.ndarray, label: int = 0) -> bytes:
    data = cv2.imencode(".png", image)[1].tobytes()
    return bytes(new("Datum", data=data, encoded=True, label=label).SerializeToString())


def test_a_gray_image_among_color_ones(fault: Fault, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    color, gray = np.full((4, 4, 3), 9, np.uint8), np.full((4, 4), 7, np.uint8)
    job.weights(lambda layers: layers["conv"].__setitem__(0, np.zeros((2, 3, 3, 3))))
    for records in ([color, gray], [color, color, gray, color]):
        job.records([encoded(image) for image in records])
        err = fault(*TEST, "--iterations=2")
        assert "x4x4. Set force_color: true (or force_gray: true)" in err
    job.edit("data_param {", "transform_param { force_color: true } data_param {")
    assert run(TEST) == 0
    job.records([encoded(color), encoded(np.full((5, 4, 3), 1, np.uint8))])
    assert "Resize all images to the same size, or set crop_size." in fault(*TEST)


# -- trained weights


@pytest.fixture
def tuned(job: Job) -> str:
    """A quantized net whose header names its weights, and a solver that trains it."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    assert run(QUANTIZE) == 0
    job.write("s", 'net: "out.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_prefix: "t"')
    return "t_iter_2.caffemodel"


TUNE = ("train", "--solver=s", "--weights=net.caffemodel")


def test_training_tells_that_the_header_names_the_old_weights(tuned: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("out.prototxt").read_bytes()
    assert run(TUNE) == 0
    err = capsys.readouterr().err
    assert "] The header of out.prototxt still names net.caffemodel, which `ristretto test` scores." in err
    assert f"Give --weights {tuned} to score the trained ones" in err
    assert Path("out.prototxt").read_bytes() == before


def test_the_header_can_name_the_trained_weights(tuned: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("out.prototxt").read_text()
    assert run((*TUNE, "--rename_weights")) == 0
    assert f"The header of out.prototxt now names {tuned}." in capsys.readouterr().err
    assert named_weights("out.prototxt") == tuned
    assert Path("out.prototxt").read_text() == before.replace("# Weights: net.caffemodel", f"# Weights: {tuned}")
    assert run(("test", "--model=out.prototxt", "--iterations=1")) == 0
    assert f"Scoring out.prototxt with {tuned}" in capsys.readouterr().err
    assert run((*TUNE, "--rename_weights")) == 0
    assert "still names" not in capsys.readouterr().err


def test_a_net_without_a_header_has_nothing_to_rename(tuned: str, fault: Fault, job: Job) -> None:
    job.edit("out.prototxt", "net.prototxt", "s")
    assert "--rename_weights has no effect" in fault(*TUNE, "--rename_weights")
    assert not Path(tuned).exists()


# -- lists of weights


def test_test_takes_weights_in_two_files(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(TEST) == 0
    expected = capsys.readouterr().out
    job.weights(lambda layers: layers.pop("ip"), "a.caffemodel")
    job.weights(lambda layers: layers.pop("conv"), "b.caffemodel")
    flags = [flag for flag in TEST if not flag.startswith("--weights")]
    assert run([*flags, "--weights=a.caffemodel,b.caffemodel"]) == 0
    assert capsys.readouterr().out == expected
    assert run([*flags, "--weights=a.caffemodel,none"]) == 1
    assert "ristretto: none: this file does not exist" in capsys.readouterr().err
