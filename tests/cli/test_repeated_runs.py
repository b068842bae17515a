"""Runs that are repeated: after a kill -9 nothing of it is left, and equal runs write equal bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ristretto_cli.cli.main import run

from .conftest import EXPORT, FORWARD, QUANTIZE, Job

WIDTHS = "--bw=conv_params=8,fc_params=8,layer=8"
FEATURES = ("extract_features", "net.caffemodel", "net.prototxt", "conv", "out", "2")
COMMANDS = {
    "lmdb": (*FEATURES, "lmdb"),
    "leveldb": (*FEATURES, "leveldb"),
    "mean": ("compute_image_mean", "db", "out"),
    "quantize": (*QUANTIZE, WIDTHS),
    "onnx": EXPORT,
    "npz": FORWARD,
    "integers": ("export", "--format=integers", "--model=q.prototxt", "--weights=net.caffemodel", "--output=out"),
    "train": ("train", "--solver=solver.prototxt", "--weights=net.caffemodel"),
}
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "out" random_seed: 1'

# A command that is killed before the n-th event that concerns its unfinished output.
KILLED = """
import os, sys
from ristretto_cli.cli.main import run

left = int(sys.argv[1])

def count(event, args):
    global left
    if event in ("open", "os.mkdir", "os.rename") and ".ristretto" in str(args[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)

sys.addaudithook(count)
run(sys.argv[2:])
"""


def prepare(job: Job, name: str) -> None:
    if name == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    if name == "train":
        pytest.importorskip("torch", reason="training needs torch")
        job.write("solver.prototxt", SOLVER)
    if name == "integers":
        assert run([*(arg.replace("out.", "q.") for arg in QUANTIZE), WIDTHS]) == 0


def written() -> dict[str, bytes]:
    """The outputs, which are removed."""
    found = {}
    for path in [*Path().glob("out*"), *Path().glob(".*")]:
        for file in [path, *path.rglob("*")]:
            if file.is_file():
                found[str(file)] = file.read_bytes()
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_after_a_kill_removes_what_was_left(job: Job, name: str) -> None:
    prepare(job, name)
    killed = [sys.executable, "-c", KILLED, "2", *COMMANDS[name]]
    done = subprocess.run(killed, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(Path().glob(".out*.ristretto"))
    assert run(COMMANDS[name]) == 0
    assert [name for name in os.listdir() if name.startswith(".")] == []  # noqa: PTH208
    assert written()


@pytest.mark.parametrize("name", COMMANDS)
def test_equal_runs_write_equal_bytes(job: Job, name: str) -> None:
    prepare(job, name)
    assert run(COMMANDS[name]) == 0
    first = written()
    assert run(COMMANDS[name]) == 0
    second = written()
    assert first
    assert sorted(first) == sorted(second)
    assert [file for file, content in first.items() if second[file] != content] == []
