"""Flags without effect with other flags or with the net: each is an error or a warning, none is ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click import Context, Option

from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.cli.flag_rules import Excludes, Needs
from ristretto_cli.cli.gflags import GflagsCommand
from ristretto_cli.cli.main import Shell, run

from .conftest import EXPORT, FORWARD, QUANTIZE, TEST, Job

NPZ = ("export", "--format=npz", "--weights=net.caffemodel", "--output=out.npz")
MINIFLOAT = (*QUANTIZE[:4], "--trimming_mode=minifloat", "--iterations=1", "--calibration_iterations=1")
POWERS = (*MINIFLOAT[:4], "--trimming_mode=integer_power_of_2_weights", *MINIFLOAT[5:])
IMAGES = ("convert_imageset", "images/", "list.txt", "new_db")
TRAIN = ("train", "--solver=solver.prototxt")
FEATURES = ("extract_features", "net.caffemodel", "net.prototxt", "ip", "ip.npz", "1", "lmdb")
ALL_WIDTHS = "--bw=conv_params=8,fc_params=8,layer=8"
NO_DETECTION = "--ap_version has no effect: the net has no DetectionEvaluate layer as output. Omit --ap_version."
NO_PARAMS = "has no effect: no layer quantizes its parameters."
OR_TRAIN = "or train a quantized net."

SOLVER = """
net: "net.prototxt" test_iter: 1 test_interval: 2 base_lr: 0.01 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "P"
"""

# A command line, and what is said of it; the exit code is 2.
REFUSED = [
    ((*QUANTIZE, "--dry_run", "--json=x"), "--json has no effect with --dry_run"),
    ((*QUANTIZE, ALL_WIDTHS, "--bit_widths=8"), "--bit_widths has no effect with --bw, which gives all widths"),
    ((*QUANTIZE, ALL_WIDTHS, "--early_stop"), "--early_stop has no effect with --bw, which gives all widths"),
    ((*QUANTIZE, ALL_WIDTHS, "--nohold_margin"), "--nohold_margin has no effect with --bw, which gives all widths"),
    ((*QUANTIZE, ALL_WIDTHS, "--search=smallest"), "--search has no effect with --bw, which gives all widths"),
    ((*QUANTIZE, "--legacy", "--search=smallest"), "--search has no effect with --legacy"),
    (
        (*POWERS, "--search=smallest"),
        "--search has no effect with --trimming_mode=integer_power_of_2_weights, which has fixed widths",
    ),
    (
        (*MINIFLOAT, "--nohold_margin"),
        "--nohold_margin has no effect with --trimming_mode=minifloat, which combines no widths",
    ),
    (
        (*QUANTIZE[:4], "--trimming_mode=dynamic_fixed_point", ALL_WIDTHS, "--noscore", "--hold_margin=false"),
        "--nohold_margin has no effect with --noscore",
    ),
    (
        (*QUANTIZE, "--legacy", "--nohold_margin"),
        "--nohold_margin has no effect with --legacy, which never widens the combined net",
    ),
    (
        (*QUANTIZE, "--error_margin=2", "--error_margin_absolute=0.1"),
        "--error_margin has no effect with --error_margin_absolute",
    ),
    ((*QUANTIZE, "--legacy", "--error_margin_absolute=0.1"), "--error_margin_absolute has no effect with --legacy"),
    ((*QUANTIZE, "--error_margin_absolute=-1"), "Invalid value for '--error_margin_absolute'"),
    ((*QUANTIZE, "--error_margin_absolute=nan"), "Invalid value for '--error_margin_absolute'"),
    ((*QUANTIZE, "--legacy", "--fl_params=mse"), "--fl_params=mse has no effect with --legacy"),
    (
        (*MINIFLOAT, "--fl_params=max"),
        "--fl_params has no effect with --trimming_mode=minifloat, only with dynamic_fixed_point",
    ),
    (
        (*MINIFLOAT, "--early_stop"),
        "--early_stop has no effect with --trimming_mode=minifloat, which scores all nets in full",
    ),
    ((*MINIFLOAT, "--bw=net=8", "--bit_widths=8"), "--bit_widths has no effect with --bw, which gives all widths"),
    (
        (*POWERS, "--bit_widths=8,4"),
        "--bit_widths has no effect with --trimming_mode=integer_power_of_2_weights, which has fixed widths",
    ),
    ((*QUANTIZE[:-1], "--calibration_iterations=0"), "Invalid value for '--calibration_iterations'"),
    ((*NPZ, "--phase=TRAIN"), "--phase has no effect with --format=npz"),
    ((*NPZ, "--model=net.prototxt", "--phase=TEST"), "--phase has no effect with --format=npz"),
    ((*NPZ, "--level=1"), "--level has no effect without --model"),
    ((*NPZ, "--level=0"), "--level has no effect without --model"),
    ((*NPZ, "--stage=a"), "--stage has no effect without --model"),
    ((*NPZ, "--allow_missing_weights"), "--allow_missing_weights has no effect without --model"),
    ((*NPZ, "--blobs=ip"), "unknown flag --blobs"),
    (
        ("time", "--model=net.prototxt", "--input_shape=data=1,1,4,4", "--input_shape=data=2,1,4,4"),
        '"data" is given twice',
    ),
    (
        ("summary", "--model=net.prototxt", "--input_shape=data=1,1,4,4", "--input_shape=data=2,1,4,4"),
        '"data" is given twice',
    ),
    ((*IMAGES, "--seed=1"), "--seed has no effect without --shuffle"),
    ((*IMAGES, "--seed=0"), "--seed has no effect without --shuffle"),
    ((*IMAGES, "--resize_width=4"), "--resize_width and --resize_height must be used together"),
    ((*TRAIN, "--weights=net.caffemodel", "--snapshot=x"), "give --snapshot to resume training or --weights"),
    # Arguments that are too many, for commands without and with arguments.
    ((*TEST, "more"), 'unexpected "more": values are given as --flag=value'),
    ((*IMAGES, "more"), "unexpected extra argument"),
    (("compute_image_mean", "db", "mean.binaryproto", "more"), "unexpected extra argument"),
    (("convert_mnist_data", "a", "b", "c", "more"), "unexpected extra argument"),
    (("convert_cifar_data", "a", "b", "lmdb", "more"), "unexpected extra argument"),
    ((*FEATURES, "CPU", "0", "more"), "unexpected extra argument"),
    (("upgrade_net_proto_text", "a", "b", "more"), "unexpected extra argument"),
    (("upgrade_net_proto_binary", "a", "b", "more"), "unexpected extra argument"),
    (("upgrade_solver_proto_text", "a", "b", "more"), "unexpected extra argument"),
]

# The same where it is the net that leaves a flag without effect, so that the exit code is 1.
REFUSED_FOR_THE_NET = [
    ((*TEST, "--ap_version=11point"), NO_DETECTION),
    ((*TEST, "--ap_version=Integral"), NO_DETECTION),
    ((*QUANTIZE, "--ap_version=11point"), NO_DETECTION),
    ((*QUANTIZE, "--ap_version=11point", "--dry_run"), NO_DETECTION),
    ((*QUANTIZE, "--early_stop", "--score=loss"), "--early_stop needs a score with known bounds"),
    ((*QUANTIZE[:3], *QUANTIZE[4:], "--dry_run", "--model_quantized=nowhere/q.prototxt"), "nowhere does not exist"),
]
REFUSED_IN_TRAINING = [
    ((*TRAIN, "--ap_version=11point"), NO_DETECTION),
    ((*TRAIN, "--round_to_nearest"), f"--round_to_nearest {NO_PARAMS} Omit --round_to_nearest, {OR_TRAIN}"),
    ((*TRAIN, "--trimmed_weights"), f"--trimmed_weights {NO_PARAMS} Omit --trimmed_weights, {OR_TRAIN}"),
    (
        (*TRAIN, "--trim_activations"),
        f"--trim_activations has no effect: no layer quantizes activations. Omit --trim_activations, {OR_TRAIN}",
    ),
]

# A command line that works, and the only warning about flags.
WARNED = [
    (
        (*TEST, "--iterations=2", "--iterations", "1"),
        "--iterations is given 3 times: the last one counts, --iterations=1.",
    ),
    ((*FORWARD, "--seed=1", "-seed=2"), "--seed is given 2 times: the last one counts, --seed=2."),
    (
        (*EXPORT, "--allow_missing_weights", "--noallow_missing_weights"),
        "--allow_missing_weights is given 2 times: the last one counts, --noallow_missing_weights.",
    ),
    ((*TEST, "--stage=deploy"), 'Stage "deploy" has no effect: no layer of net.prototxt has a rule for it.'),
    ((*TEST, "--level=2"), "Level 2 has no effect: no layer of net.prototxt has a rule for levels."),
    (
        ("summary", "--model=net.prototxt", "--stage=deploy"),
        'Stage "deploy" has no effect: no layer of net.prototxt has a rule for it.',
    ),
    (
        (*IMAGES, "--check_size", "--resize_width=4", "--resize_height=4"),
        "--check_size has no effect with --resize_width and --resize_height: all images become that size.",
    ),
    (
        (*IMAGES, "--gray", "--encoded"),
        "--gray has no effect with --encoded: files are stored unchanged. Add --encode_type.",
    ),
    ((*FEATURES, "CPU", "3"), "DEVICE_ID=3 has no effect with CPU."),
]

# A command line that works, with flags that are empty as they are by default, or repeated with the same value.
SILENT = [
    (*TEST, "--iterations=1", "--gpu=", "--stage="),
    (*FORWARD, "--blobs=", "--stage=", "--gpu="),
    # Without --weights all layers are filled, which is what the flag asks for.
    (*FORWARD[:2], FORWARD[3], "--allow_missing_weights"),
    ("time", "--model=net.prototxt", "--iterations=1", "--allow_missing_weights"),
    (*NPZ, "--stage="),
    (*NPZ, "--noallow_missing_weights"),
    (*NPZ, "--model=net.prototxt", "--level=0"),
    (*QUANTIZE[:3], *QUANTIZE[4:], "--dry_run", "--bw=", "--model_quantized="),
    (*QUANTIZE, "--dry_run", "--bit_widths=8", "--bw=conv_params=8", "--early_stop"),
    (*QUANTIZE, "--dry_run", "--fl_params=max", "--legacy"),
    (*QUANTIZE, "--dry_run", "--hold_margin", "--legacy"),
    (*QUANTIZE, "--dry_run", "--nonoscore"),
    (*IMAGES, "--encode_type=", "--check_size"),
    (*IMAGES, "--shuffle", "--seed=1"),
    (*IMAGES, "--gray", "--encoded", "--encode_type=png"),
]

# Files that are named with an empty name.
EMPTY = [
    (*TEST, "--model="),
    (*TEST, "--weights="),
    (*TEST, "--json="),
    (*FORWARD, "--weights="),
    (*FORWARD, "--input="),
    (*FORWARD, "--output="),
    (*NPZ, "--model="),
    (*NPZ, "--weights="),
    (*QUANTIZE, "--json="),
    (*QUANTIZE, "--score="),
    ("draw", "--model=net.prototxt", "--output="),
    ("summary", "--model=net.prototxt", "--json="),
    ("time", "--model=net.prototxt", "--weights="),
]


def reported(each: tuple[str, ...] | str) -> str:
    """A command line as the name of a test."""
    return " ".join(each) if isinstance(each, tuple) else ""


Said = Callable[..., list[str]]


@pytest.fixture
def said(job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs a command in the tiny job's folder; what ristretto itself says, and its warnings."""
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    job.write("solver.prototxt", SOLVER)
    (job.folder / "images").mkdir()
    cv2.imwrite(str(job.folder / "images" / "a.png"), np.zeros((6, 6, 3), np.uint8))
    job.write("list.txt", "a.png 0\n")

    def call(args: tuple[str, ...], code: int) -> list[str]:
        capsys.readouterr()
        found = run(args)
        err = capsys.readouterr().err
        assert found == code, err
        reported = [line.removeprefix("ristretto: ") for line in err.splitlines() if line.startswith("ristretto: ")]
        return reported + [line.partition("] ")[2] for line in err.splitlines() if line[:1] == "W"]

    return call


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=reported)
def test_a_flag_without_effect_is_a_usage_error(said: Said, args: tuple[str, ...], message: str) -> None:
    (line,) = said(args, 2)
    assert message in line


@pytest.mark.parametrize(("args", "message"), REFUSED_FOR_THE_NET, ids=lambda each: each[-1])
def test_a_flag_without_effect_on_the_net_is_refused(said: Said, args: tuple[str, ...], message: str) -> None:
    (line,) = said(args, 1)
    assert message in line


@pytest.mark.parametrize(("args", "message"), REFUSED_IN_TRAINING, ids=lambda each: each[-1])
def test_a_flag_without_effect_on_training_is_refused(said: Said, args: tuple[str, ...], message: str) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    (line,) = said(args, 1)
    assert line in (f"net.prototxt: {message}", f"solver.prototxt: {message}")
    assert list(Path().glob("P_iter*")) == []


@pytest.mark.parametrize(("args", "message"), WARNED, ids=reported)
def test_a_flag_without_effect_that_does_no_harm_is_warned_of(said: Said, args: tuple[str, ...], message: str) -> None:
    assert said(args, 0) == [message]


@pytest.mark.parametrize("args", SILENT, ids=" ".join)
def test_flags_that_have_an_effect_or_their_default_are_not_warned_of(said: Said, args: tuple[str, ...]) -> None:
    assert [line for line in said(args, 0) if "effect" in line or "times" in line] == []


@pytest.mark.parametrize("args", EMPTY, ids=" ".join)
def test_a_file_or_blob_with_an_empty_name_is_not_passed_over(said: Said, args: tuple[str, ...]) -> None:
    assert said(args, 1)


def test_the_last_of_several_flags_counts(said: Said) -> None:
    said((*FORWARD, "--blobs=conv", "--blobs=ip"), 0)
    assert "ip" in read_npz("out.npz")
    assert "conv" not in read_npz("out.npz")


def test_a_level_of_0_goes_over_the_solvers(said: Said, job: Job) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    job.write("solver.prototxt", SOLVER + "train_state { level: 3 }")
    warning = "Level 3 has no effect: no layer of net.prototxt has a rule for levels."
    assert said(TRAIN, 0) == [warning]
    assert said((*TRAIN, "--level=0"), 0) == []


def test_json_has_the_default_ap_version(said: Said) -> None:
    said(TEST, 0)
    assert json.loads(Path("out.json").read_text())["ap_version"] == "Integral"


def test_rules_are_about_flags_that_their_command_has() -> None:
    shell = Shell("ristretto_cli.cli")
    commands = [shell.get_command(Context(shell), name) for name in shell.list_commands(Context(shell))]
    seen = 0
    for command in commands:
        assert isinstance(command, GflagsCommand)
        options = [param for param in command.params if isinstance(param, Option)]
        # --noflag where a flag is on by default.
        flags = {max(param.secondary_opts if param.default is True else param.opts, key=len) for param in options}
        for rule in command.rules:
            assert isinstance(rule, (Needs, Excludes))
            assert {rule.flag, rule.other} <= flags
            seen += 1
    assert seen
