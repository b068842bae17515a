"""--gpu and --require_gpu of every command that has them, where no GPU can be used."""

from __future__ import annotations

import re
from pathlib import Path

import click
import onnxruntime
import pytest

from ristretto_cli.cli import main
from ristretto_cli.cli.main import run

from .conftest import FORWARD, QUANTIZE, TEST, Job

LOG_LINE = re.compile(r"([IWEF])\d{4} [0-9:.]+ +\d+ \w+\.py:\d+] (.*)")
TIME = ("time", "--model=net.prototxt", "--iterations=1")
BACKWARD = (*FORWARD, "--backward")
TRAIN = ("train", "--solver=solver.prototxt")
EXTRACT = ("extract_features", "net.caffemodel", "net.prototxt", "ip", "out.npz", "1", "lmdb")
SOLVER = """
net: "net.prototxt" test_iter: 1 test_interval: 1
base_lr: 0.01 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "P"
"""
COMMANDS = [QUANTIZE, TEST, FORWARD, TIME, BACKWARD, TRAIN, EXTRACT]
ON_TORCH = (BACKWARD, TRAIN)
QUIET = (FORWARD, BACKWARD)  # these do not log that they run on the CPU
CPU = {TRAIN: "Use CPU.", EXTRACT: "Using CPU"}

ONNXRUNTIME_HAS_NONE = (
    "the installed onnxruntime has no CUDA support. For a GPU: pip uninstall onnxruntime; pip install onnxruntime-gpu."
)
TORCH_HAS_NONE = "torch cannot use GPU {}: no GPU found. Check that torch was built with CUDA and matches the driver."
FALLBACK = "Falling back to the CPU, which gives the same results. --require_gpu makes this an error."


def named(args: tuple[str, ...]) -> str:
    return "backward" if args is BACKWARD else args[0]


@pytest.fixture
def no_gpu(job: Job, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The tiny job on a machine without a GPU."""
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    job.write("solver.prototxt", SOLVER)
    return job


def without_torch_skipped(args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if args in ON_TORCH:
        torch = pytest.importorskip("torch", reason="training needs torch")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def log(text: str) -> list[tuple[str, str]]:
    """The severities and messages of the log; every line has to be of it, or a progress bar."""
    matches = [LOG_LINE.fullmatch(line) for line in text.splitlines()]
    assert all(matches), text
    return [(match[1], match[2]) for match in matches if match]


def reason(args: tuple[str, ...], number: int) -> str:
    return TORCH_HAS_NONE.format(number) if args in ON_TORCH else ONNXRUNTIME_HAS_NONE


def test_every_command_that_takes_a_gpu_is_tried_here() -> None:
    shell = main.Shell("ristretto_cli.cli")
    context = click.Context(shell)
    found = set()
    for name in shell.list_commands(context):
        command = shell.get_command(context, name)
        assert command is not None
        flags = {param.name for param in command.params}
        assert "gpu" not in flags or "require_gpu" in flags, name
        if "require_gpu" in flags:
            found.add(name)
    # The first runs no net, the second needs a trimmed one.
    assert found - {"device_query", "analyze"} == {args[0] for args in COMMANDS}


@pytest.mark.parametrize("args", COMMANDS, ids=named)
@pytest.mark.parametrize("spelling", ["--gpu 0", "--gpu 7", "--gpu 0,1,2,3", "--gpu all", "-gpu=0"])
def test_the_cpu_is_used_with_one_warning(
    no_gpu: Job,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    spelling: str,
) -> None:
    without_torch_skipped(args, monkeypatch)
    number = re.split("[ =]", spelling)[1]
    source = f"--gpu={number}"
    if args is EXTRACT:
        source, flags = f'"GPU {number}"', ["GPU", number]
    else:
        flags = spelling.split()
    assert run([*args, *flags]) == 0
    reported = log(capsys.readouterr().err)
    why = reason(args, 7 if number == "7" else 0)
    assert [text for severity, text in reported if severity == "W"] == [
        f"{source}: the GPU cannot be used: {why} {FALLBACK}"
    ]
    messages = [text for _, text in reported]
    assert args in QUIET or messages[1] == CPU.get(args, "Use CPU.")
    assert not [text for text in messages if text.startswith(("Use GPU", "Using GPU"))]


@pytest.mark.parametrize("args", [QUANTIZE, TEST], ids=named)
def test_what_is_found_is_the_cpus(no_gpu: Job, capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    results = []
    for flags in ([], ["--gpu=0"]):
        assert run([*args, *flags]) == 0
        results.append((capsys.readouterr().out, [Path(n).read_text() for n in no_gpu.files() if n.startswith("out.")]))
    assert results[0] == results[1]


@pytest.mark.parametrize("args", COMMANDS, ids=named)
@pytest.mark.parametrize("flags", [["--gpu=0", "--require_gpu"], ["--require_gpu"], ["--require_gpu", "--gpu="]])
def test_a_required_gpu_is_an_error_in_one_line(
    no_gpu: Job,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    flags: list[str],
) -> None:
    without_torch_skipped(args, monkeypatch)
    if args is EXTRACT:
        flags = [flag for flag in flags if flag != "--gpu="]
        flags = [*(["GPU"] if "--gpu=0" in flags else []), "--require_gpu"]
    before = no_gpu.files()
    assert run([*args, *flags]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"ristretto: the GPU cannot be used: {reason(args, 0)} Without --require_gpu the CPU is used.\n",
    )
    assert no_gpu.files() == before


@pytest.mark.parametrize("args", COMMANDS, ids=named)
@pytest.mark.parametrize("value", ["x", "-1", "1.5", "0,"])
def test_what_is_no_gpu_is_a_usage_error(
    no_gpu: Job, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], value: str
) -> None:
    if args is EXTRACT and value.startswith("-"):
        value = f"DEVICE_ID={value}"
    flags, what = (["GPU", value], "[DEVICE_ID]") if args is EXTRACT else ([f"--gpu={value}"], "--gpu")
    assert run([*args, *flags]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"ristretto: Invalid value for '{what}': invalid GPU \"{value.removeprefix('DEVICE_ID=')}\": "
        "expected a device number such as 0, a list such as 0,1, or all",
        f"Try 'ristretto {args[0]} --help'.",
    ]


def test_a_later_norequire_gpu_wins(no_gpu: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*TEST, "--gpu=0", "--require_gpu", "--norequire_gpu"]) == 0
    assert FALLBACK in capsys.readouterr().err


def test_extract_features_on_the_cpu_requires_no_gpu(no_gpu: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*EXTRACT, "CPU", "--require_gpu"]) == 2
    assert "ristretto: CPU and --require_gpu exclude each other\n" in capsys.readouterr().err
    assert run([*EXTRACT, "CPU"]) == 0
    assert "W" not in {severity for severity, _ in log(capsys.readouterr().err)}


def test_a_dry_run_of_quantize_looks_for_no_gpu(no_gpu: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*QUANTIZE, "--gpu=all", "--require_gpu", "--dry_run"]) == 0
    assert capsys.readouterr().err == ""


# --- training: the solver file may ask for a GPU, and test nets are scored on onnxruntime


@pytest.fixture
def gpu_solver(no_gpu: Job) -> Job:
    no_gpu.write("solver.prototxt", f"{SOLVER} solver_mode: GPU device_id: 2")
    return no_gpu


def test_a_solver_files_gpu_is_replaced_in_the_same_way(
    gpu_solver: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch_skipped(TRAIN, monkeypatch)
    assert run(TRAIN) == 0
    assert log(capsys.readouterr().err)[:2] == [
        ("W", f"solver_mode: GPU in solver.prototxt: the GPU cannot be used: {TORCH_HAS_NONE.format(2)} {FALLBACK}"),
        ("I", "Use CPU."),
    ]
    assert run([*TRAIN, "--gpu=1"]) == 0
    assert log(capsys.readouterr().err)[0] == (
        "W",
        f"--gpu=1: the GPU cannot be used: {TORCH_HAS_NONE.format(1)} {FALLBACK}",
    )


@pytest.mark.parametrize(("flags", "number"), [([], 2), (["--gpu=1"], 1)])
def test_a_solver_files_gpu_can_be_required(
    gpu_solver: Job,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    number: int,
) -> None:
    without_torch_skipped(TRAIN, monkeypatch)
    assert run([*TRAIN, *flags, "--require_gpu"]) == 1
    assert f"ristretto: the GPU cannot be used: torch cannot use GPU {number}:" in capsys.readouterr().err


def test_what_torch_warns_of_is_part_of_the_reason(
    no_gpu: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch")

    def is_available() -> bool:
        import warnings

        warnings.warn("The NVIDIA driver\nis too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert run([*TRAIN, "--gpu=0", "--require_gpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "torch cannot use GPU 0: The NVIDIA driver is too old; no GPU found." in line


@pytest.mark.parametrize(("gpu", "why"), [(0, "no kernel image is available"), (4, "the last GPU found is 1")])
def test_a_gpu_that_torch_finds_is_tried(
    no_gpu: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, gpu: int, why: str
) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch")

    def ones(*_: object, device: str) -> None:
        assert device == f"cuda:{gpu}"
        raise RuntimeError(f"CUDA error: {why}\nCompile with TORCH_USE_CUDA_DSA.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "ones", ones)
    assert run([*BACKWARD, f"--gpu={gpu}", "--require_gpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ristretto: the GPU cannot be used: torch cannot use GPU {gpu}: ")
    assert why in line


def test_test_nets_are_scored_on_the_cpu_where_only_torch_can_use_the_gpu(
    no_gpu: Job, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    from ristretto_cli.backends.device_choice import GpuRequest
    from ristretto_cli.train import run as config

    monkeypatch.setattr(config, "probe", lambda gpu: None)
    monkeypatch.setattr(config, "device_of", lambda gpu: "cpu")
    caplog.set_level("INFO", "ristretto")
    config.run(config.TrainConfig("solver.prototxt", gpu=GpuRequest(0, required=True)))
    messages = caplog.messages
    assert f"Test nets are scored on the CPU, which gives the same results: {ONNXRUNTIME_HAS_NONE}" in messages
    assert "Using GPUs 0" in messages
