"""A disk that is full, or a file that may not grow: one line, exit code 1, and nothing is left."""

from __future__ import annotations

import os
import re
import resource
import shutil
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ristretto_cli.cli.main import run

from .conftest import EXPORT, FORWARD, QUANTIZE, TEST, Job, datum

RISTRETTO = (sys.executable, "-m", "ristretto_cli")
ROOM = "free some space, or write to another disk."
LIMIT = "raise the limit on the size of files (ulimit -f)."

# Commands that write 100 kB or more, and such that write a little; {out} is where to.
LARGE = {
    "lmdb": ("convert_mnist_data", "-backend=lmdb", "images", "labels", "{out}"),
    "leveldb": ("convert_mnist_data", "-backend=leveldb", "images", "labels", "{out}"),
    "features": ("extract_features", "net.caffemodel", "net.prototxt", "data", "{out}.npz", "1000", "lmdb"),
}
SMALL = {
    "npz": (*FORWARD[:-1], "--output={out}.npz"),
    "onnx": (*EXPORT[:-1], "--output={out}.onnx"),
    "quantize": (*(arg.replace("=out", "={out}") for arg in QUANTIZE),),
    "json": (*TEST[:-1], "--json={out}.json"),
    "draw": ("draw", "--model=net.prototxt", "--output={out}.dot"),
    "binary": ("upgrade_net_proto_binary", "net.caffemodel", "{out}.caffemodel"),
    "integers": ("export", "--format=integers", "--model=q.prototxt", "--weights=net.caffemodel", "--output={out}"),
    "weights": ("export", "--format=npz", "--weights=net.caffemodel", "--output={out}.npz"),
    "fold": (
        *("fold", "--model=net.prototxt", "--weights=net.caffemodel"),
        *("--model_folded={out}.prototxt", "--weights_folded={out}.caffemodel"),
    ),
    "text": ("upgrade_net_proto_text", "net.prototxt", "{out}.prototxt"),
    "solver": ("upgrade_solver_proto_text", "solver.prototxt", "{out}.prototxt"),
    "plot": ("plot", "train.log", "--output={out}.svg"),
    "train": ("train", "--solver=solver.prototxt", "--weights=net.caffemodel"),
    "mean": ("compute_image_mean", "db", "{out}.binaryproto"),
}
FREE = [0, 8, 12, 60]  # kB: the lock file has 8, an empty LMDB 8 more

# A file system of 1 MB with {free} kB left, in which a command runs; its exit code and what it leaves on stdout.
FULL = """
mount -t tmpfs -o size=1024k,nr_inodes=1000 tmpfs full || exit 99
dd if=/dev/zero of=full/filling bs=1024 count=$((1024 - {free})) 2> /dev/null
"$@" > out.txt
code=$?
ls -A full | grep -v '^filling$'
umount full
exit $code
"""


@pytest.fixture(autouse=True)
def digits(job: Job) -> None:
    """Files for the commands: 200 images, a solver, and the log of a training."""
    solver = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "out"'
    job.write("solver.prototxt", solver)
    lines = [f"I0101 00:00:0{i}.0 1 solver.cpp:1] Iteration {i}, loss = 0.{i}" for i in range(1, 4)]
    job.write("train.log", "\n".join(lines) + "\n")
    job.write("images", struct.pack(">IIII", 0x803, 200, 28, 28) + bytes(200 * 28 * 28))
    job.write("labels", struct.pack(">II", 0x801, 200) + bytes(200))


def on_full_disk(free: int, args: tuple[str, ...], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a disk with `free` kB left; skips the test where none can be mounted."""
    Path("full").mkdir(exist_ok=True)
    line = ["sh", "-c", FULL.replace("{free}", str(free)), "-", *RISTRETTO, *args]
    env = {**os.environ, **environment}
    # A user may mount in a name space of its own, if the system lets it.
    for front in ([["unshare", "-rm"]] if shutil.which("unshare") else []) + ([[]] if os.geteuid() == 0 else []):
        done = subprocess.run([*front, *line], capture_output=True, text=True, timeout=120, check=False, env=env)
        mounted = done.returncode != 99 and "unshare:" not in done.stderr
        if mounted:
            return done
    pytest.skip("no file system can be mounted here, neither in a user name space nor as root")


def expect_one_line(done: subprocess.CompletedProcess[str], reason: str, hint: str) -> None:
    assert done.returncode == 1, done.stderr
    reported = [line for line in done.stderr.splitlines() if not re.match(r"[IW]\d{4} ", line)]
    assert len(reported) == 1
    assert re.fullmatch(
        rf"ristretto: (full/)?out[.\w]*: cannot be written: {reason}\. {re.escape(hint)}", reported[0], re.I
    )


def prepare(job: Job, name: str) -> None:
    """Skip the test of a command whose extra is missing; write the inputs that need a command."""
    if name == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    if name == "plot":
        pytest.importorskip("matplotlib", reason="plots need matplotlib")
    if name == "train":
        pytest.importorskip("torch", reason="training needs torch")
        job.edit('snapshot_prefix: "out"', 'snapshot_prefix: "full/out"', "solver.prototxt")
    if name == "integers":
        widths = "--bw=conv_params=8,fc_params=8,layer=8"
        assert run([*(arg.replace("out.", "q.") for arg in QUANTIZE), widths]) == 0


@pytest.mark.parametrize("free", FREE)
@pytest.mark.parametrize("name", LARGE)
def test_large_outputs_do_not_fit_on_a_full_disk(job: Job, name: str, free: int) -> None:
    prepare(job, name)
    done = on_full_disk(free, tuple(arg.format(out="full/out") for arg in LARGE[name]))
    expect_one_line(done, "no space left on device", ROOM)
    assert done.stdout == ""


@pytest.mark.parametrize("name", SMALL)
def test_no_output_fits_on_a_disk_without_room(job: Job, name: str) -> None:
    prepare(job, name)
    done = on_full_disk(0, tuple(arg.format(out="full/out") for arg in SMALL[name]))
    expect_one_line(done, "no space left on device", ROOM)
    assert done.stdout == ""


@pytest.mark.parametrize("limit", [0, 8192, 12288, 60000])
@pytest.mark.parametrize("name", LARGE)
def test_files_that_may_not_grow_are_reported(job: Job, name: str, limit: int) -> None:
    """Without a file system of its own: a limit on the size of files stands for a full disk."""
    prepare(job, name)
    before = job.files()
    done = subprocess.run(
        [*RISTRETTO, *(arg.format(out="out") for arg in LARGE[name])],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expect_one_line(done, "file too large", LIMIT)
    assert job.files() == before


def test_a_full_disk_for_the_copy_of_a_leveldb_is_reported(job: Job) -> None:
    plyvel = pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    with closing(plyvel.DB("level", create_if_missing=True)) as level, level.write_batch() as batch:
        for i in range(4000):
            batch.put(b"%08d" % i, datum(os.urandom(16)))
    done = on_full_disk(20, ("compute_image_mean", "-backend=leveldb", "level"), TMPDIR="full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ristretto: level cannot be read through a temporary copy: No space left on device. "
        "Set TMPDIR to a folder with more space."
    )
    assert done.stdout == ""
