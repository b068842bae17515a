"""SIGTERM and SIGHUP end a command as they end any process, and leave nothing unfinished."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import EXPORT, FORWARD, Job

SIGNALS = [signal.SIGTERM, signal.SIGHUP]

# A command that gets a signal when it calls a function: its name, the signal, the command line.
RUN = """
import importlib, os, sys
from unittest import mock
from ristretto_cli.cli.main import main

target, number, *sys.argv[1:] = sys.argv[1:]
module, _, name = target.partition(":")
owner = importlib.import_module(module)
*parts, name = name.split(".")
for part in parts:
    owner = getattr(owner, part)
real = getattr(owner, name)

def stop(*args, **kwargs):
    print(sorted(name for name in os.listdir() if name.startswith(".")), flush=True)
    os.kill(os.getpid(), int(number))
    return real(*args, **kwargs)

setattr(owner, name, stop)
main()
"""
FEATURES = ("extract_features", "net.caffemodel", "net.prototxt", "conv", "out", "2")
WRITERS = {
    "lmdb": ("ristretto_cli.datasets.new_database:NewDatabase.commit", (*FEATURES, "lmdb")),
    "leveldb": ("ristretto_cli.datasets.new_database:NewDatabase.commit", (*FEATURES, "leveldb")),
    "npz": ("numpy.lib.format:write_array", FORWARD),
    "onnx": ("onnx:save", EXPORT),
}


def run(target: str, number: int, args: tuple[str, ...], **kwargs: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", RUN, target, str(int(number)), *args]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **kwargs)  # type: ignore[call-overload, no-any-return]


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_terminated_command_leaves_nothing_and_dies_of_the_signal(job: Job, name: str, number: int) -> None:
    if name == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    before = job.files()
    done = run(*_with_signal(name, number))
    assert done.returncode == -number, done.stderr
    assert done.stdout.startswith("['.out")  # it was writing
    assert job.files() == before


def _with_signal(name: str, number: int) -> tuple[str, int, tuple[str, ...]]:
    target, args = WRITERS[name]
    return target, number, args


def test_nohup_stays_in_force(job: Job) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    done = run(*_with_signal("npz", signal.SIGHUP), preexec_fn=ignore)
    assert done.returncode == 0, done.stderr
    assert Path("out.npz").exists()


def test_the_temporary_copy_of_a_leveldb_goes_too(job: Job, tmp_path: Path) -> None:
    plyvel = pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    plyvel.DB("level", create_if_missing=True).close()
    copies = tmp_path / "copies"
    copies.mkdir()
    target = "ristretto_cli.sources.database:LevelDb.records"
    args = ("compute_image_mean", "-backend=leveldb", "level")
    done = run(target, signal.SIGTERM, args, env={**os.environ, "TMPDIR": str(copies)})
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert list(copies.iterdir()) == []


def test_a_program_that_draws_is_ended_too(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "dot").write_text("#!/bin/sh\nexec 9> alive\ncat > input\nkill -TERM $PPID\nexec sleep 600\n")
    (folder / "dot").chmod(0o755)
    os.mkfifo("alive")
    reader = os.open("alive", os.O_RDONLY | os.O_NONBLOCK)
    line = [sys.executable, "-m", "ristretto_cli", "draw", "--model=net.prototxt", "--output=net.svg"]
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(line, env={**os.environ, "PATH": path}, stderr=subprocess.DEVNULL, timeout=120, check=False)
    assert done.returncode == -signal.SIGTERM
    assert select.select([reader], [], [], 60)[0]  # all ends for writing are closed
    os.close(reader)
    assert not Path("net.svg").exists()


def test_where_a_signal_ends_nothing_the_exit_code_tells(job: Job) -> None:
    """The first process of a container, for which the default is to ignore it."""
    code = (
        "import os, signal\n"
        "from ristretto_cli.cli import termination\n"
        "termination.clean_up_on_termination()\n"
        "os.kill = lambda process, number: None\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 128 + signal.SIGTERM


def test_only_signals_that_would_end_the_process_are_handled() -> None:
    code = (
        "import signal\n"
        "from ristretto_cli.cli.termination import clean_up_on_termination\n"
        "def own(number, frame): ...\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, own)\n"
        "clean_up_on_termination()\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM) is own)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
