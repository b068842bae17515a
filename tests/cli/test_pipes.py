"""Pipes as inputs, such as bash's <(zcat net.caffemodel.gz): they can be read once, from start to end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from ristretto_cli.caffe_io.weights import write_weights
from ristretto_cli.cli.main import run

from .conftest import FORWARD, QUANTIZE, TEST, Job, tiny_weights

NET_INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }\n'


def through_pipes(args: tuple[str, ...], *files: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these files replaced by named pipes."""
    for file in files:
        content = Path(file).read_bytes()
        pipe = f"{file}.pipe"
        os.mkfifo(pipe)

        def feed(pipe: str = pipe, content: bytes = content) -> None:
            with suppress(BrokenPipeError):
                Path(pipe).write_bytes(content)

        Thread(target=feed, daemon=True).start()
        args = tuple(arg.replace(f"={file}", f"={pipe}") for arg in args)
    command = [sys.executable, "-m", "ristretto_cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("weights", ["net.caffemodel", "net.caffemodel.h5"])
def test_forward_reads_all_its_inputs_from_pipes(job: Job, weights: str) -> None:
    net = (job.folder / "net.prototxt").read_text().splitlines()
    deploy = NET_INPUT + "\n".join(line for line in net if '"Data"' not in line and "label" not in line)
    job.write("deploy.prototxt", deploy)
    write_weights(weights, tiny_weights())
    np.savez("x.npz", data=np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    args = ("forward", "--model=deploy.prototxt", f"--weights={weights}", "--input=x.npz", "--output=a.npz")
    assert run(args) == 0
    done = through_pipes((*args[:-1], "--output=b.npz"), "deploy.prototxt", weights, "x.npz")
    assert done.returncode == 0, done.stderr
    with np.load("a.npz") as expected, np.load("b.npz") as found:
        np.testing.assert_array_equal(found["ip"], expected["ip"])


@pytest.mark.parametrize("args", [FORWARD, TEST, QUANTIZE])
def test_a_net_and_its_weights_may_be_pipes(job: Job, args: tuple[str, ...]) -> None:
    done = through_pipes(args, "net.prototxt", "net.caffemodel")
    assert done.returncode == 0, done.stderr


def test_the_header_of_a_net_in_a_pipe_is_not_read(job: Job) -> None:
    job.write("net.prototxt", "# Weights: net.caffemodel\n" + (job.folder / "net.prototxt").read_text())
    done = through_pipes((TEST[0], TEST[1], *TEST[3:]), "net.prototxt")
    assert done.returncode == 1
    reported = "ristretto: net.prototxt.pipe: no weights file is named in its header. Use --weights."
    assert done.stderr.splitlines()[-1] == reported
