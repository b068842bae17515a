"""What goes to stdout and what to stderr, where they are one file and where JSON takes stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.cli.main import run

from .conftest import NET, QUANTIZE, TEST, Job

WIDTHS = "--bw=conv_params=8,fc_params=8,layer=8"
RISTRETTO = [sys.executable, "-m", "ristretto_cli"]
LAST = "Please fine-tune."


def lines_of(raw: bytes) -> list[str]:
    return raw.decode().replace("\\r\\n", "\\n").splitlines()


def environment(level: str = "0") -> dict[str, str]:
    return {**os.environ, "GLOG_minloglevel": level, "TERM": "dumb"}


def merged(stdout: Any, *args: str, level: str = "0") -> None:
    subprocess.run(
        [*RISTRETTO, *args],
        stdout=stdout,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        check=True,
        env=environment(level),
        timeout=120,
    )


def in_pipe(*args: str, level: str = "0") -> list[str]:
    done = subprocess.run(
        [*RISTRETTO, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        env=environment(level),
        timeout=120,
    )
    return lines_of(done.stdout)


def in_file(*args: str) -> list[str]:
    with Path("all").open("wb") as file:
        merged(file, *args)
    return lines_of(Path("all").read_bytes())


def opened_twice(*args: str) -> list[str]:
    with Path("all").open("ab") as out, Path("all").open("ab") as err:
        subprocess.run([*RISTRETTO, *args], stdout=out, stderr=err, check=True, env=environment(), timeout=120)
    return lines_of(Path("all").read_bytes())


@pytest.mark.parametrize("where", [in_pipe, in_file, opened_twice])
def test_in_one_stream_the_summary_stands_once_in_the_log(job: Job, where: Any) -> None:
    said = where(*QUANTIZE, WIDTHS)
    assert len([line for line in said if line.endswith("Network accuracy analysis for")]) == 1
    assert said[-1].endswith(f"] {LAST}")  # in glog's format, which scripts read


def test_in_one_stream_a_silenced_log_leaves_the_result(job: Job) -> None:
    said = in_pipe(*QUANTIZE, WIDTHS, level="1")
    assert said.count(LAST) == 1
    assert said[-1] == "Written to out.prototxt"
    assert not [line for line in said if line.startswith("I")]


def test_on_a_terminal_the_summary_stands_once_as_plain_text(job: Job) -> None:
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*RISTRETTO, *QUANTIZE, WIDTHS], stdout=terminal, stderr=terminal, stdin=subprocess.DEVNULL, env=environment()
    )
    os.close(terminal)
    said = b""
    while True:
        try:
            part = os.read(main, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        said += part
    os.close(main)
    assert process.wait(120) == 0
    assert [line for line in lines_of(said) if line.endswith(LAST)] == [LAST]


def test_in_two_streams_the_summary_stands_in_both(job: Job) -> None:
    done = subprocess.run(
        [*RISTRETTO, *QUANTIZE, WIDTHS], capture_output=True, check=True, env=environment(), timeout=120
    )
    assert lines_of(done.stdout).count(LAST) == 1
    assert lines_of(done.stderr)[-1].endswith(f"] {LAST}")


def test_in_one_stream_the_scores_of_test_stand_once(job: Job) -> None:
    said = in_pipe(*TEST)
    assert len([line for line in said if "Loss: " in line]) == 1
    assert any("] accuracy = " in line for line in said)


# --- --json -


SUMMARY = ("summary", "--model=net.prototxt")
SOLVER = """
net: "net.prototxt" test_iter: 1 test_interval: 1 base_lr: 0.1 lr_policy: "fixed" max_iter: 1 display: 1
snapshot_prefix: "P" solver_mode: CPU
"""


@pytest.mark.parametrize(
    ("command", "key"),
    [((*QUANTIZE, WIDTHS), "combined"), (TEST[:-1], "outputs"), (SUMMARY, "layers")],
    ids=["quantize", "test", "summary"],
)
def test_json_has_stdout_to_itself(
    command: tuple[str, ...], key: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run((*command, "--json", "-")) == 0
    out, err = capsys.readouterr()
    assert key in json.loads(out)
    assert not Path("-").exists()
    if command[0] == "quantize":
        assert err.splitlines()[-1].endswith(f"] {LAST}")


def test_json_of_training_has_stdout_to_itself(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    job.write("solver.prototxt", SOLVER)
    job.write("net.prototxt", NET)
    assert run(("train", "--solver=solver.prototxt", "--weights=net.caffemodel", "--json=-")) == 0
    assert json.loads(capsys.readouterr().out)["iteration"] == 1
    assert not Path("-").exists()
