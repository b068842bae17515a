"""The scripts: what they run, and what they say when something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.net_file import read_solver

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
MODELS = SCRIPTS.parent / "models"
QUANTIZE = "00_quantize_squeezenet.sh"
FINETUNE = "01_finetune_squeezenet.sh"
FIXED = "02_benchmark_fixedpoint_squeezenet.sh"
FLOATING = "benchmark_floatingpoint_squeezenet.sh"


@dataclass(frozen=True)
class Place:
    """All that the scripts ask for, in a folder. A stand-in for the command prints folder and arguments."""

    folder: Path

    def run(self, script: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        data = self.folder / "data"
        given = {
            "PATH": os.environ["PATH"],
            "RISTRETTO": str(self.folder / "ristretto"),
            "WEIGHTS": str(self.folder / "w.caffemodel"),
            "QUANTIZED": str(self.folder / "q.prototxt"),
            "DATA": str(data),
            "OUT": str(self.folder / "out"),
            **settings,
        }
        return subprocess.run(
            [SCRIPTS / script, *arguments],
            cwd=self.folder,
            env=given,
            capture_output=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "data" / "ilsvrc12_train_lmdb").mkdir(parents=True)
    (tmp_path / "data" / "ilsvrc12_val_lmdb").mkdir()
    (tmp_path / "w.caffemodel").touch()
    (tmp_path / "q.prototxt").touch()
    command = tmp_path / "ristretto"
    command.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    command.chmod(0o755)
    return Place(tmp_path)


def test_quantizes_2000_batches_with_a_margin_of_3_from_the_folder_of_the_databases(place: Place) -> None:
    done = place.run(QUANTIZE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        str(place.folder / "data"),
        "quantize",
        f"--model={SCRIPTS.parent}/models/squeezenet_v1.0/train_val.prototxt",
        f"--weights={place.folder}/w.caffemodel",
        f"--model_quantized={place.folder}/q.prototxt",
        "--trimming_mode=dynamic_fixed_point",
        "--iterations=2000",
        "--error_margin=3",
    ]


def test_fixed_point_scores_the_quantized_net(place: Place) -> None:
    done = place.run(FIXED)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "test",
        f"--model={place.folder}/q.prototxt",
        f"--weights={place.folder}/w.caffemodel",
        "--iterations=2000",
    ]


def test_floating_point_scores_the_net_itself(place: Place) -> None:
    done = place.run(FLOATING, ITERATIONS="7")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "test",
        f"--model={SCRIPTS.parent}/models/squeezenet_v1.0/train_val.prototxt",
        f"--weights={place.folder}/w.caffemodel",
        "--iterations=7",
    ]


def test_fine_tunes_the_quantized_net_with_the_solver_that_names_it(place: Place) -> None:
    done = place.run(FINETUNE, "--gpu=0", "--trim_activations", ITERATIONS="20")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        str(place.folder / "data"),
        "train",
        f"--solver={place.folder}/squeezenet_finetuned.solver",
        f"--weights={place.folder}/w.caffemodel",
        "--gpu=0",
        "--trim_activations",
    ]
    solver = read_solver(place.folder / "squeezenet_finetuned.solver").message
    assert (solver.net, solver.snapshot_prefix) == (
        f"{place.folder}/q.prototxt",
        f"{place.folder}/squeezenet_finetuned",
    )
    assert list(solver.test_iter) == [20]
    original = read_solver(MODELS / "squeezenet_v1.0" / "solver_finetune.prototxt").message
    for field in ("net", "snapshot_prefix", "test_iter"):
        solver.ClearField(field)
        original.ClearField(field)
    assert solver == original


def test_fine_tuning_has_the_settings_of_ristrettos_demo() -> None:
    solver = read_solver(MODELS / "squeezenet_v1.0" / "solver_finetune.prototxt").message
    assert (solver.type, solver.lr_policy, solver.random_seed) == ("Adam", "fixed", 42)
    assert (solver.iter_size, solver.max_iter, solver.average_loss) == (32, 2000, 40)
    assert (list(solver.test_iter), solver.test_interval, solver.snapshot) == ([2000], 100, 100)
    rates = (solver.base_lr, solver.momentum, solver.momentum2, solver.delta, solver.weight_decay)
    assert rates == pytest.approx((1e-6, 0.9, 0.999, 1e-8, 2e-4), rel=1e-6)


def test_fine_tuning_resumes_from_a_snapshot_instead_of_the_weights(place: Place) -> None:
    done = place.run(FINETUNE, SNAPSHOT="f_iter_100.solverstate", FINETUNED="f")
    assert done.stdout.splitlines()[1:] == [
        "train",
        f"--solver={place.folder}/f.solver",
        f"--snapshot={place.folder}/f_iter_100.solverstate",
    ]


def test_fine_tuning_takes_paths_with_quotes_and_backslashes(place: Place) -> None:
    odd = place.folder / 'a "b" \\n & c.prototxt'
    odd.touch()
    assert place.run(FINETUNE, QUANTIZED=str(odd)).returncode == 0
    assert read_solver(place.folder / "squeezenet_finetuned.solver").message.net == str(odd)


def test_fine_tuning_says_that_its_solver_is_missing(place: Place) -> None:
    done = place.run(FINETUNE, SOLVER="nowhere")
    assert (done.returncode, done.stdout) == (66, "")
    assert f"the solver is not there: {place.folder}/nowhere. Set SOLVER to it" in done.stderr


def test_paths_are_relative_to_the_folder_it_is_called_from(place: Place) -> None:
    done = place.run(FIXED, WEIGHTS="w.caffemodel", QUANTIZED="q.prototxt", DATA="data", RISTRETTO="./ristretto")
    assert done.stdout.splitlines()[:4] == [
        str(place.folder / "data"),
        "test",
        f"--model={place.folder}/q.prototxt",
        f"--weights={place.folder}/w.caffemodel",
    ]


def test_the_failure_of_the_command_is_the_scripts(place: Place) -> None:
    (place.folder / "ristretto").write_text("#!/bin/sh\nexit 3\n")
    assert place.run(QUANTIZE).returncode == 3


@pytest.mark.parametrize("script", [QUANTIZE, FINETUNE, FIXED, FLOATING])
@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("MODEL", "the net is not there: {}. Set MODEL to it"),
        ("WEIGHTS", "the caffemodel is not there: {}. Set WEIGHTS to it"),
        ("DATA", "the folder of the databases is not there: {}. Set DATA to it"),
    ],
)
def test_says_which_path_is_missing(place: Place, script: str, variable: str, words: str) -> None:
    missing = str(place.folder / "nowhere")
    done = place.run(script, **{variable: missing})
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.startswith(f"{script}: " + words.format(missing))
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", [QUANTIZE, FINETUNE, FIXED, FLOATING])
def test_says_that_the_validation_database_is_missing(place: Place, script: str) -> None:
    (place.folder / "data" / "ilsvrc12_val_lmdb").rmdir()
    done = place.run(script)
    assert done.returncode == 66
    assert f"the database ilsvrc12_val_lmdb is not there: {place.folder}/data/ilsvrc12_val_lmdb." in done.stderr


def test_only_quantizing_and_fine_tuning_read_the_training_database(place: Place) -> None:
    (place.folder / "data" / "ilsvrc12_train_lmdb").rmdir()
    assert [place.run(script).returncode for script in (QUANTIZE, FINETUNE)] == [66, 66]
    assert [place.run(script).returncode for script in (FIXED, FLOATING)] == [0, 0]


@pytest.mark.parametrize("script", [FINETUNE, FIXED])
def test_says_to_quantize_first(place: Place, script: str) -> None:
    (place.folder / "q.prototxt").unlink()
    done = place.run(script)
    assert done.returncode == 66
    assert (
        f"the quantized net is not there: {place.folder}/q.prototxt. Run 00_quantize_squeezenet.sh first" in done.stderr
    )


@pytest.mark.parametrize("script", [QUANTIZE, FINETUNE, FIXED, FLOATING])
def test_says_that_the_command_is_missing(place: Place, script: str) -> None:
    done = place.run(script, RISTRETTO="no-such-ristretto")
    assert (done.returncode, done.stdout) == (69, "")
    assert "there is no command no-such-ristretto. Install it" in done.stderr


# --- LeNet's whole cycle

TRAIN, TRIM, TUNE, SCORE = (f"lenet/{name}.sh" for name in ("00_train", "01_quantize", "02_finetune", "03_score"))
FLOAT_WEIGHTS, TUNED_WEIGHTS = "lenet_float_iter_10000.caffemodel", "lenet_finetuned_iter_3000.caffemodel"


@pytest.fixture
def mnist(place: Place) -> Place:
    """A place with the databases of MNIST, and nothing else in its folder `out` than an empty net and weights."""
    (place.folder / "out").mkdir()
    for name in (FLOAT_WEIGHTS, TUNED_WEIGHTS, "quantized.prototxt"):
        (place.folder / "out" / name).touch()
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (place.folder / "data" / name).mkdir()
    return place


def test_lenet_is_trained_from_scratch(mnist: Place) -> None:
    done = mnist.run(TRAIN, "--threads=1")
    assert (done.returncode, done.stderr) == (0, "")
    out = mnist.folder / "out"
    assert done.stdout.splitlines() == [
        str(mnist.folder / "data"),
        "train",
        f"--solver={out}/lenet_float.solver",
        "--threads=1",
    ]
    solver = read_solver(out / "lenet_float.solver").message
    assert (solver.net, solver.snapshot_prefix) == (f"{MODELS}/lenet/train_val.prototxt", f"{out}/lenet_float")
    assert list(solver.test_iter) == [100]


def test_lenet_is_quantized(mnist: Place) -> None:
    out = mnist.folder / "out"
    assert mnist.run(TRIM, ERROR_MARGIN="1", ITERATIONS="7").stdout.splitlines()[1:] == [
        "quantize",
        f"--model={MODELS}/lenet/train_val.prototxt",
        f"--weights={out}/{FLOAT_WEIGHTS}",
        f"--model_quantized={out}/quantized.prototxt",
        "--trimming_mode=dynamic_fixed_point",
        "--iterations=7",
        "--error_margin=1",
    ]


def test_lenet_is_fine_tuned_with_trimmed_activations(mnist: Place) -> None:
    out = mnist.folder / "out"
    assert mnist.run(TUNE).stdout.splitlines()[1:] == [
        "train",
        f"--solver={out}/lenet_finetuned.solver",
        f"--weights={out}/{FLOAT_WEIGHTS}",
        "--trim_activations",
    ]
    solver = read_solver(out / "lenet_finetuned.solver").message
    assert (solver.net, solver.snapshot_prefix) == (f"{out}/quantized.prototxt", f"{out}/lenet_finetuned")


def test_lenet_is_scored_in_floating_point_trimmed_and_fine_tuned(mnist: Place) -> None:
    lines = [line for line in mnist.run(SCORE).stdout.splitlines() if not line.startswith("--iterations")]
    out, data = mnist.folder / "out", str(mnist.folder / "data")
    float_net, trimmed = f"--model={MODELS}/lenet/train_val.prototxt", f"--model={out}/quantized.prototxt"
    untuned, tuned = f"--weights={out}/{FLOAT_WEIGHTS}", f"--weights={out}/{TUNED_WEIGHTS}"
    assert lines == [
        *("Floating point:", data, "test", float_net, untuned),
        *("Trimmed:", data, "test", trimmed, untuned),
        *("Trimmed and fine-tuned:", data, "test", trimmed, tuned),
    ]


def test_the_cycle_takes_all_four_steps_and_stops_where_one_fails(mnist: Place) -> None:
    def steps() -> list[str]:
        return [line for line in mnist.run("lenet/all.sh").stdout.splitlines() if line.startswith("== ")]

    assert steps() == ["== 00_train", "== 01_quantize", "== 02_finetune", "== 03_score"]
    (mnist.folder / "ristretto").write_text('#!/bin/sh\n[ "$1" = train ]\n')
    assert steps() == ["== 00_train", "== 01_quantize"]


@pytest.mark.parametrize(
    ("script", "missing", "words"),
    [
        (TRIM, FLOAT_WEIGHTS, "the trained net is not there: {}. Run 00_train.sh first"),
        (TUNE, FLOAT_WEIGHTS, "the trained net is not there: {}. Run 00_train.sh first"),
        (TUNE, "quantized.prototxt", "the trimmed net is not there: {}. Run 01_quantize.sh first"),
        (SCORE, TUNED_WEIGHTS, "the fine-tuned net is not there: {}. Run 02_finetune.sh first"),
    ],
)
def test_a_step_says_which_one_comes_first(mnist: Place, script: str, missing: str, words: str) -> None:
    path = mnist.folder / "out" / missing
    path.unlink()
    done = mnist.run(script)
    assert (done.returncode, done.stdout) == (66, "")
    assert words.format(path) in done.stderr


@pytest.mark.parametrize(
    ("solver", "weights"), [("solver.prototxt", FLOAT_WEIGHTS), ("solver_finetune.prototxt", TUNED_WEIGHTS)]
)
def test_lenets_weights_are_named_by_the_iterations_of_its_solvers(solver: str, weights: str) -> None:
    assert weights.endswith(f"_iter_{read_solver(MODELS / 'lenet' / solver).message.max_iter}.caffemodel")


@pytest.mark.parametrize("script", [TRAIN, TRIM, TUNE, SCORE])
@pytest.mark.parametrize("database", ["mnist_train_lmdb", "mnist_test_lmdb"])
def test_lenet_says_which_database_is_missing(mnist: Place, script: str, database: str) -> None:
    (mnist.folder / "data" / database).rmdir()
    done = mnist.run(script)
    assert (done.returncode, done.stdout) == (66, "")
    assert f"the database {database} is not there: {mnist.folder}/data/{database}." in done.stderr


# --- the digits net in C and in Verilog

HARDWARE = ("hardware/00_quantize.sh", "hardware/01_c.sh", "hardware/02_verilog.sh")


@pytest.fixture
def digits(place: Place) -> Place:
    """A place with the databases of the digits and a quantized net."""
    (place.folder / "out").mkdir()
    (place.folder / "out" / "quantized.prototxt").touch()
    for name in ("digits_train_lmdb", "digits_test_lmdb"):
        (place.folder / "data" / name).mkdir()
    return place


def test_the_digits_are_quantized_to_8_bits_without_scoring(digits: Place) -> None:
    done = digits.run(HARDWARE[0], "--unsigned")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        str(digits.folder / "data"),
        "quantize",
        f"--model={MODELS}/digits/train_val.prototxt",
        f"--weights={digits.folder}/w.caffemodel",
        f"--model_quantized={digits.folder}/out/quantized.prototxt",
        "--trimming_mode=dynamic_fixed_point",
        "--bw=conv_params=8,fc_params=8,layer=8",
        "--noscore",
        "--unsigned",
    ]


@pytest.mark.parametrize(
    ("script", "settings", "words"),
    [
        (HARDWARE[1], ["--format=c", "--output={}/out/c"], "not run: there is no make or no C compiler (none)"),
        (
            HARDWARE[2],
            ["--format=mem", "--output={}/out/mem", "--per_line=4"],
            "not simulated: iverilog is not installed",
        ),
    ],
)
def test_exports_are_not_run_where_the_tools_are_missing(
    digits: Place, script: str, settings: list[str], words: str
) -> None:
    tools = digits.folder / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "basename", "mkdir", "sh"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    done = digits.run(script, "--rounding=floor", PATH=str(tools), CC="none", IMAGES="3")
    assert (done.returncode, done.stderr) == (0, "")
    given = [each.format(digits.folder) for each in settings]
    command = done.stdout.splitlines()[:-1]
    assert command[1] == "export"
    assert {*given, "--vectors=3", "--rounding=floor", f"--model={digits.folder}/out/quantized.prototxt"} <= {*command}
    assert done.stdout.splitlines()[-1] == words


@pytest.mark.parametrize("script", HARDWARE)
@pytest.mark.parametrize("database", ["digits_train_lmdb", "digits_test_lmdb"])
def test_hardware_says_which_database_is_missing(digits: Place, script: str, database: str) -> None:
    (digits.folder / "data" / database).rmdir()
    done = digits.run(script)
    assert (done.returncode, done.stdout) == (66, "")
    assert f"the database {database} is not there: {digits.folder}/data/{database}." in done.stderr


@pytest.mark.parametrize("script", HARDWARE[1:])
def test_hardware_is_quantized_first(digits: Place, script: str) -> None:
    (digits.folder / "out" / "quantized.prototxt").unlink()
    done = digits.run(script)
    assert (done.returncode, done.stdout) == (66, "")
    assert "quantized.prototxt. Run 00_quantize.sh first, with the same OUT." in done.stderr


def test_hardware_takes_all_three_steps_and_stops_where_one_fails(digits: Place) -> None:
    def steps() -> list[str]:
        found = digits.run("hardware/all.sh", CC="none").stdout.splitlines()
        return [line for line in found if line.startswith("== ")]

    (digits.folder / "ristretto").write_text('#!/bin/sh\n[ "$1" = quantize ]\n')
    assert steps() == ["== 00_quantize", "== 01_c"]


@pytest.fixture
def real(digits: Place) -> Place:
    """The same with images, a net and the real command."""
    command = digits.folder / "ristretto"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ristretto_cli "$@"\n')
    (digits.folder / "out" / "quantized.prototxt").unlink()
    rng = np.random.default_rng(0)
    for name in ("digits_train_lmdb", "digits_test_lmdb"):
        environment = lmdb.open(str(digits.folder / "data" / name), map_size=1 << 22)
        with environment, environment.begin(write=True) as view:
            for i in range(80):
                pixels = rng.integers(0, 17, 64, np.uint8).tobytes()
                image = new("Datum", channels=1, height=8, width=8, data=pixels, label=i % 10)
                view.put(b"%08d" % i, image.SerializeToString())
    return digits


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_the_last_layer_in_verilog_gives_the_exported_outputs(real: Place) -> None:
    settings = {"WEIGHTS": str(MODELS / "digits" / "digits.caffemodel"), "PYTHONPATH": str(SCRIPTS.parent)}
    done = real.run(HARDWARE[0], **settings)
    assert done.returncode == 0, done.stderr
    for flags in ((), ("--pack", "--per_line=3", "--rounding=away")):
        done = real.run(HARDWARE[2], *flags, IMAGES="5", **settings)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ip2: 10 outputs of 5 images: 0 differ")
    # Another rounding mode than the exported one.
    header = real.folder / "out" / "mem" / "net.vh"
    header.write_text(header.read_text().replace("ROUNDING = 2", "ROUNDING = 3"))
    files = [str(SCRIPTS / "hardware" / name) for name in ("dot_product_tb.v", "dot_product.v")]
    subprocess.run(["iverilog", "-g2001", "-o", "wrong", *files], cwd=header.parent, check=True, timeout=100)
    ran = subprocess.run(["vvp", "-n", "wrong"], cwd=header.parent, capture_output=True, text=True, timeout=100)
    assert not ran.stdout.endswith(": 0 differ\n")
