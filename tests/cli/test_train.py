"""`ristretto train` as a user runs it: flags, files, resuming, signals, and all that can go wrong on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.cli.main import run

from .conftest import Job

torch = pytest.importorskip("torch", reason="training needs torch")

SOLVER = """
net: "net.prototxt"
test_iter: 1
test_interval: 2
base_lr: 0.01
lr_policy: "fixed"
momentum: 0.9
display: 1
max_iter: 4
snapshot: 2
snapshot_prefix: "P"
random_seed: 1
"""
TRAIN = ("train", "--solver=solver.prototxt", "--weights=net.caffemodel")

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def training(job: Job) -> Job:
    """The tiny job, with a solver that trains it."""
    job.write("solver.prototxt", SOLVER)
    return job


@pytest.fixture
def ristretto(training: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command and gives back what stands on stdout and stderr."""
    monkeypatch.delenv("GLOG_minloglevel", raising=False)

    def call(*args: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        found = run(args)
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return call


def weights(file: str) -> dict[str, list[list[float]]]:
    return {name: [blob.array.tolist() for blob in blobs] for name, blobs in read_weights(file).layers.items()}


def snapshots() -> list[str]:
    return sorted(path.name for path in Path().glob("*_iter_*"))


# --- what works


def test_train_saves_as_the_solver_says_and_tells_the_last_figures(ristretto: Run) -> None:
    out, err = ristretto(*TRAIN, "--json=figures.json")
    assert snapshots() == [
        *("P_iter_2.caffemodel", "P_iter_2.solverstate", "P_iter_4.caffemodel", "P_iter_4.solverstate"),
    ]
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["iteration"], figures["stopped_early"]) == (4, False)
    assert (figures["model"], figures["state"]) == ("P_iter_4.caffemodel", "P_iter_4.solverstate")
    (tested,) = figures["tests"]
    assert sorted(tested) == ["accuracy", "loss"]
    assert out.splitlines() == [
        f"Iteration 4, loss = {figures['loss']:g}",
        f"accuracy = {tested['accuracy'][0]:g}",
        f"loss = {tested['loss'][0]:g}",
        "Weights: P_iter_4.caffemodel",
        "State: P_iter_4.solverstate",
    ]
    assert "nan" not in out
    for line in ("Use CPU.", "Finetuning from net.caffemodel", "Starting Optimization", "Solving tiny"):
        assert f"] {line}\n" in err
    assert err.splitlines()[-1].endswith("] Optimization Done.")


def test_every_spelling_of_gflags_is_taken(ristretto: Run) -> None:
    ristretto("train", "-solver", "solver.prototxt", "-weights=net.caffemodel", "--sighup_effect", "none", "-gpu=")


def test_the_figures_of_the_last_test_are_those_that_test_prints(ristretto: Run) -> None:
    ristretto(*TRAIN, "--json=figures.json")
    ristretto(
        *("test", "--model=net.prototxt", "--weights=P_iter_4.caffemodel", "--iterations=2", "--json=scores.json"),
    )
    # two batches are the whole database; training tests one of them each time
    assert json.loads(Path("scores.json").read_text())["outputs"].keys() == {"accuracy", "loss"}
    ristretto("forward", "--model=net.prototxt", "--weights=P_iter_4.caffemodel", "--output=o.npz")
    assert np.load("o.npz")["loss"].size == 1


@pytest.mark.parametrize(("form", "ending"), [("BINARYPROTO", ""), ("HDF5", ".h5")])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_resumed_training_ends_where_the_whole_one_does(
    training: Job, ristretto: Run, form: str, ending: str, kind: str
) -> None:
    training.write("solver.prototxt", f'{SOLVER}snapshot_format: {form}\ntype: "{kind}"\n')
    ristretto(*TRAIN)
    whole = weights(f"P_iter_4.caffemodel{ending}")
    assert whole != weights(f"P_iter_2.caffemodel{ending}")
    Path(f"P_iter_4.caffemodel{ending}").unlink()
    # the database has as many batches as iterations were run, so that starting over is going on
    _, err = ristretto("train", "--solver=solver.prototxt", f"--snapshot=P_iter_2.solverstate{ending}")
    assert f"] Resuming from P_iter_2.solverstate{ending}\n" in err
    assert weights(f"P_iter_4.caffemodel{ending}") == whole


def test_of_several_files_of_weights_the_last_one_counts(training: Job, ristretto: Run) -> None:
    training.edit("max_iter: 4", "max_iter: 0", "solver.prototxt")
    training.edit("snapshot: 2\n", "", "solver.prototxt")
    training.weights(lambda layers: layers.update(ip=[np.ones((3, 8)), np.zeros(3)], conv=layers["conv"]), "b.h5")
    _, err = ristretto("train", "--solver=solver.prototxt", "--weights=net.caffemodel, b.h5")
    assert "] Finetuning from b.h5\n" in err
    assert weights("P_iter_0.caffemodel")["ip"][0] == np.ones((3, 8)).tolist()


@pytest.fixture
def trimmed(training: Job) -> Job:
    fixed = "quantization_param { precision: DYNAMIC_FIXED_POINT bw_params: 4 fl_params: 2 }"
    training.edit('"Convolution"', '"ConvolutionRistretto"')
    training.edit("kernel_size: 3 }", f"kernel_size: 3 }} {fixed}")
    return training


def test_trimmed_weights_lie_on_the_grid_and_score_the_same(trimmed: Job, ristretto: Run) -> None:
    ristretto(*TRAIN, "--trimmed_weights")
    assert "P_iter_4_trimmed.caffemodel" in snapshots()
    saved, on_grid = weights("P_iter_4.caffemodel"), weights("P_iter_4_trimmed.caffemodel")
    assert saved["ip"] == on_grid["ip"]
    (kernel, bias), (kernel4, bias4) = saved["conv"], on_grid["conv"]
    assert np.abs(np.subtract(kernel, kernel4)).max() > 0.01
    for values in (kernel4, bias4):
        steps = np.asarray(values) * 4
        assert (steps == np.clip(np.round(steps), -8, 7)).all()
    assert bias != bias4
    scores = []
    for file in ("P_iter_4.caffemodel", "P_iter_4_trimmed.caffemodel"):
        out, _ = ristretto("test", "--model=net.prototxt", f"--weights={file}", "--iterations=2")
        scores.append(out)
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    "settings",
    [
        "bw_params: 4 fl_params: 2",
        "bw_params: 4 fl_params: 2 bw_bias: 6 fl_bias: 5",
        "precision: MINIFLOAT mant_bits: 2 exp_bits: 4",
    ],
)
@pytest.mark.parametrize("rounding", ["NEAREST", "STOCHASTIC"])
def test_trimmed_weights_are_those_that_export_writes(
    training: Job, ristretto: Run, settings: str, rounding: str
) -> None:
    training.edit('"Convolution"', '"ConvolutionRistretto"')
    quantization = f"quantization_param {{ {settings} rounding_scheme: {rounding} }}"
    training.edit("kernel_size: 3 }", f"kernel_size: 3 }} {quantization}")
    ristretto(*TRAIN, "--trimmed_weights")
    ristretto(
        *("export", "--format=npz", "--model=net.prototxt", "--weights=P_iter_4.caffemodel", "--output=w.npz"),
    )
    exported = {key: array.tolist() for key, array in np.load("w.npz").items()}
    trimmed = weights("P_iter_4_trimmed.caffemodel")
    assert exported == {f"{name}/{i}": values for name, arrays in trimmed.items() for i, values in enumerate(arrays)}
    assert exported["conv/0"] != weights("P_iter_4.caffemodel")["conv"][0]


def test_activations_are_trimmed_in_training_if_wanted(trimmed: Job, ristretto: Run) -> None:
    trimmed.edit("fl_params: 2 }", "fl_params: 2 bw_layer_out: 2 fl_layer_out: 0 }")
    _, without = ristretto(*TRAIN)
    _, quantizing = ristretto(*TRAIN, "--trim_activations")
    first = [re.search(r"Iteration 0 .*loss = (\S+)", err) for err in (without, quantizing)]
    assert first[0] and first[1]
    assert first[0][1] != first[1][1]


@pytest.mark.parametrize(("flags", "different"), [((), 3), (("--round_to_nearest",), 1)])
def test_weights_are_rounded_to_nearest_in_training_if_wanted(
    trimmed: Job, ristretto: Run, flags: tuple[str, ...], different: int
) -> None:
    learnt = []
    for seed in (1, 2, 3):
        trimmed.edit(f"random_seed: {max(1, seed - 1)}", f"random_seed: {seed}", "solver.prototxt")
        ristretto(*TRAIN, *flags)
        learnt.append(weights("P_iter_4.caffemodel"))
    # with weights of a file, rounding is all that is random
    assert sum(found not in learnt[:i] for i, found in enumerate(learnt)) == different


def test_statistics_that_a_short_training_does_not_renew_are_warned_of(training: Job, ristretto: Run) -> None:
    training.edit(
        'layer { name: "ip"', 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }\nlayer { name: "ip"'
    )
    channels = len(read_weights("net.caffemodel").layers["conv"][1].array)
    sums = [np.zeros(channels), np.full(channels, 1000.0), np.full(1, 1000.0)]
    training.weights(lambda layers: layers.update(bn=sums), "bn.caffemodel")
    reported = 'Layer "bn": after this training, 100 % of its statistics will still be the initial ones. '
    assert reported in ristretto("train", "--solver=solver.prototxt", "--weights=bn.caffemodel")[1]
    # The resumed training updates its initial statistics.
    assert reported not in ristretto("train", "--solver=solver.prototxt", "--snapshot=P_iter_2.solverstate")[1]


# --- what goes wrong


def refused(ristretto: Run, *args: str, code: int = 1) -> str:
    """The lines that ristretto itself says, without the log."""
    _, err = ristretto(*args, code=code)
    return "\n".join(line.removeprefix("ristretto: ") for line in err.splitlines() if line.startswith("ristretto: "))


def test_weights_and_a_snapshot_together_are_refused_as_in_caffe(ristretto: Run) -> None:
    said = refused(ristretto, *TRAIN, "--snapshot=P_iter_2.solverstate", code=2)
    assert said == "give --snapshot to resume training or --weights to finetune, but not both"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("train",), "missing: --solver"),
        (("train", "--solver=s", "--sigint_effect=ignore"), "'ignore' is not one of"),
        (("train", "--solver=s", "--snapshots=x"), "unknown flag --snapshots. Did you mean --snapshot?"),
        (("train", "--solver=s", "--iterations=5"), "unknown flag --iterations"),
        (("train", "--solver=s", "--gpu=x"), 'invalid GPU "x"'),
    ],
)
def test_bad_flags(ristretto: Run, args: tuple[str, ...], said: str) -> None:
    assert said in refused(ristretto, *args, code=2)


def test_torch_that_is_missing_is_reported_in_one_line(ristretto: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert refused(ristretto, *TRAIN) == "training needs torch: pip install 'ristretto-cli[train]'"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('net: "net.prototxt"', 'net: "gone.prototxt"', "gone.prototxt: this file does not exist"),
        ('net: "net.prototxt"', 'train_net: "net.prototxt" test_net: "gone.prototxt"', "gone.prototxt: this file does"),
        ('snapshot_prefix: "P"', 'snapshot_prefix: "no/P"', "the folder .*/no does not exist"),
        ("base_lr: 0.01\n", "", "solver.prototxt: base_lr is missing. Add base_lr to the solver"),
        ('"fixed"', '"fixd"', "solver.prototxt:6: .*Did you mean fixed?"),
    ],
)
def test_bad_solver_files(training: Job, ristretto: Run, old: str, new: str, said: str) -> None:
    training.edit(old, new, "solver.prototxt")
    assert re.search(said, refused(ristretto, *TRAIN))
    assert snapshots() == []


def test_a_state_of_another_net_or_solver_type_is_refused(training: Job, ristretto: Run) -> None:
    ristretto(*TRAIN)
    resume = ("train", "--solver=solver.prototxt", "--snapshot=P_iter_2.solverstate")
    training.write("solver.prototxt", f'{SOLVER}type: "Adam"\n')
    assert "its history has 4 arrays; expected 8 for this solver type and 4 trainable parameters" in refused(
        ristretto, *resume
    )
    training.write("solver.prototxt", SOLVER)
    training.edit("num_output: 3", "num_output: 4")
    assert "history 2 has shape 3x8, but parameter ip/0 of this net has 4x8" in refused(ristretto, *resume)
    assert "this file does not exist" in refused(ristretto, *resume[:2], "--snapshot=gone.solverstate")


def test_weights_that_lack_a_layer_may_be_a_start_but_not_a_resume(training: Job, ristretto: Run) -> None:
    training.weights(lambda layers: layers.pop("ip"))
    _, err = ristretto(*TRAIN)
    assert "Not in net.caffemodel, initialized by the net's fillers: ip" in err
    training.weights(lambda layers: layers.pop("ip"), "P_iter_2.caffemodel")
    said = refused(ristretto, "train", "--solver=solver.prototxt", "--snapshot=P_iter_2.solverstate")
    assert said == (
        "P_iter_2.solverstate: its weights in P_iter_2.caffemodel lack the layers ip. To initialize these with "
        "fillers, use only the weights, with --weights."
    )


def test_a_loss_that_is_not_a_number_is_warned_of_once_and_its_snapshot_refused(training: Job, ristretto: Run) -> None:
    training.edit("base_lr: 0.01", "base_lr: 1e38", "solver.prototxt")
    out, err = ristretto(*TRAIN)
    assert "Iteration 4, loss = nan" in out
    assert len(re.findall(r"^W.*The loss of iteration \d is nan: the training has diverged", err, re.MULTILINE)) == 1
    said = refused(ristretto, "train", "--solver=solver.prototxt", "--snapshot=P_iter_4.solverstate")
    assert "contains NaN or infinite values" in said


# --- while it runs


@pytest.fixture
def process(training: Job) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a training without an end, and waits until it runs."""
    training.edit("max_iter: 4", "max_iter: 100000000", "solver.prototxt")
    training.edit("snapshot: 2\n", "", "solver.prototxt")
    training.edit("display: 1", "display: 50", "solver.prototxt")
    training.edit("test_interval: 2", "test_interval: 100000000", "solver.prototxt")
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str, until: str = "lr = 0.01") -> subprocess.Popen[bytes]:
        with Path("err.txt").open("wb") as err:
            command = [sys.executable, "-m", "ristretto_cli", *TRAIN, *args]
            started.append(subprocess.Popen(command, stderr=err, stdout=subprocess.PIPE))
        wait_for(until)
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def wait_for(text: str) -> str:
    deadline = time.monotonic() + 600
    while text not in (reported := Path("err.txt").read_text()):
        assert time.monotonic() < deadline, reported
        time.sleep(0.02)
    return reported


def test_sigint_saves_and_ends_the_training(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = process()
    child.send_signal(signal.SIGINT)
    assert child.wait(600) == 0
    assert "Optimization stopped early." in Path("err.txt").read_text()
    model, state = snapshots()
    assert re.fullmatch(r"P_iter_\d+.caffemodel", model)
    assert state == model.replace("caffemodel", "solverstate")


def test_a_second_sigint_ends_it_at_once(process: Callable[..., subprocess.Popen[bytes]], training: Job) -> None:
    """The first one is not answered before the iteration ends, and with this iter_size it does not."""
    training.write(
        "solver.prototxt",
        (training.folder / "solver.prototxt").read_text() + "iter_size: 100000000 test_initialization: false\n",
    )
    child = process(until="Learning Rate Policy")
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None
    for _ in range(30):  # on a busy machine both may arrive before the first is handled, and count once
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(20)
            break
    assert child.poll() == 130
    assert Path("err.txt").read_text().endswith("ristretto: interrupted\n")
    assert snapshots() == []


def test_sighup_saves_and_the_training_continues(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = process()
    child.send_signal(signal.SIGHUP)
    reported = wait_for("Snapshotting solver state")
    shown = reported.count("lr = 0.01")
    deadline = time.monotonic() + 600
    while Path("err.txt").read_text().count("lr = 0.01") <= shown:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert child.poll() is None
    assert len(snapshots()) == 2


def test_effects_are_as_the_flags_say(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = process("--sigint_effect=none", "--sighup_effect=stop")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    shown = Path("err.txt").read_text().count("lr = 0.01")
    deadline = time.monotonic() + 600
    while Path("err.txt").read_text().count("lr = 0.01") <= shown + 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGHUP)
    assert child.wait(600) == 0
    assert "stopped early" in Path("err.txt").read_text()


def test_sigterm_saves_and_ends_the_training_if_asked(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = process("--sigterm_effect=stop")
    child.send_signal(signal.SIGTERM)
    assert child.wait(600) == 0
    assert len(snapshots()) == 2


def test_sigterm_ends_the_training_without_the_flag(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = process()
    child.send_signal(signal.SIGTERM)
    assert child.wait(600) == -signal.SIGTERM
    assert snapshots() == []


@pytest.mark.parametrize("flags", [(), ("--trimmed_weights",)])
def test_names_that_become_too_long_are_reported_at_the_start(
    trimmed: Job, ristretto: Run, flags: tuple[str, ...]
) -> None:
    """The longest name is that of the last iteration's state, or of its trimmed weights."""
    longest = "_iter_4_trimmed.caffemodel" if flags else "_iter_4.solverstate"
    for length, fits in ((255 - len(longest), True), (256 - len(longest), False)):
        trimmed.write("solver.prototxt", SOLVER.replace('"P"', '"' + "P" * length + '"'))
        _, err = ristretto(*TRAIN, *flags, code=0 if fits else 1)
        assert ("Iteration 0" in err) == fits
    assert re.search(r"cannot be written: file name too long\. Choose a shorter name\.$", err, re.MULTILINE)


def test_trimmed_weights_are_written_to_folders_of_any_name(trimmed: Job, ristretto: Run) -> None:
    Path("runs.caffemodel").mkdir()
    trimmed.write("solver.prototxt", SOLVER.replace('"P"', '"runs.caffemodel/a.caffemodel"'))
    ristretto(*TRAIN, "--trimmed_weights")
    assert Path("runs.caffemodel/a.caffemodel_iter_4_trimmed.caffemodel").exists()


def test_equal_trainings_write_equal_files(training: Job, ristretto: Run) -> None:
    """At any time: HDF5 would store the second."""
    training.write("solver.prototxt", SOLVER + "snapshot_format: HDF5\n")
    found = []
    for _ in range(2):
        ristretto(*TRAIN)
        found.append({name: Path(name).read_bytes() for name in snapshots()})
        time.sleep(1.1)
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_a_full_disk_ends_the_training_in_one_line(training: Job) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200));"
        "from ristretto_cli.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *TRAIN], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ristretto: P_iter_2.caffemodel: cannot be written: file too large. "
        "Raise the limit on the size of files (ulimit -f)."
    )
    assert snapshots() == []
    assert [name for name in os.listdir() if name.startswith(".P_iter")] == []  # noqa: PTH208
