# ruff: noqa: E501 - a row's files and messages are lines as they are
"""Settings and files that losses and recurrent layers refuse: one line with the place, and no memory is taken before."""

from __future__ import annotations

import os
import tracemalloc

import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.cli.main import run

from .conftest import FORWARD, Job

MAX_BYTES = 1 << 24

# The layer's type and settings, its bottoms (`data` is 2x1x4x4, `ip` 2x3, `label` 2), and what is said of it.
ROWS = [
    ("EuclideanLoss", ["data", "label"], "",
     "bottoms of shape 2x1x4x4 and 2 have different numbers of values. Use a target for each value."),
    ("EuclideanLoss", ["data"], "",
     "expected 2 bottoms, got 1"),
    ("ContrastiveLoss", ["data", "data", "label"], "",
     "bottoms of shape 2x1x4x4 and 2x1x4x4 are not vectors of the same length. Use two of shape N x C."),
    ("HingeLoss", ["label", "data"], "",
     "32 labels (shape 2x1x4x4) for a batch of 2. Use one per row."),
    ("InfogainLoss", ["ip", "label"], 'infogain_loss_param { source: "nowhere" }',
     "nowhere: this file does not exist"),
    ("InfogainLoss", ["ip", "label"], r'infogain_loss_param { source: "a\0b" }',
     r"'a\x00b': invalid file name"),
    ("InfogainLoss", ["ip", "label"], 'infogain_loss_param { source: "db" }',
     "db: is a folder, not a file"),
    ("InfogainLoss", ["ip", "label"], 'infogain_loss_param { source: "H.binaryproto" axis: 7 }',
     "axis 7 is out of range for a bottom of shape 2x3. Use a number from -2 to 1."),
    ("InfogainLoss", ["ip", "label"], 'infogain_loss_param { source: "claims.binaryproto" }',
     "claims.binaryproto: the shape 2000000000x2000000000 has 4000000000000000000 values, but 0 are stored"),
    ("InfogainLoss", ["ip", "label"], 'infogain_loss_param { source: "H.binaryproto" }',
     "H has 4 values (shape 2x2) for 3 classes. Use 3 x 3, or set axis to that of the classes."),
    ("InfogainLoss", ["ip", "label"], "",
     "there is no matrix H. Set source in infogain_loss_param, or add a third bottom."),
    ("InfogainLoss", ["data", "label"], "",
     "2 labels (shape 2) for 32 predictions (scores of shape 2x1x4x4, classes on axis 1). Use one label per prediction, or set axis to that of the classes."),
    ("LSTM", ["data", "label"], "recurrent_param { num_output: 2 }",
     "bottoms of shape 2x1x4x4 and 2 are not steps x streams x values and steps x streams"),
    ("LSTMUnit", ["data", "data", "label"], "",
     "expected 2 tops, got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "bottoms", "settings", "said"), ROWS)
def test_a_layer_is_refused_with_its_line(
    kind: str, bottoms: list[str], settings: str, said: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write("H.binaryproto", _blob(2, 2, values=4))
    job.write("claims.binaryproto", _blob(2_000_000_000, 2_000_000_000))
    job.insert(_layer(kind, bottoms, settings), after=4)
    assert _refused(capsys) == f'net.prototxt:5: layer "x" ({kind}): {said}'


@pytest.mark.parametrize(
    ("steps", "streams", "settings", "said"),
    [
        (2_000_000_000, 1, "num_output: 1", "2000000000 time steps are too many. The maximum is 1024."),
        (1, 1, "num_output: 4000000000", "a blob of shape 16000000000x1 has too many elements"),
        (1, 1, "num_output: 100000", "a blob of shape 400000x100000 has too many elements"),
        (1, 200_000_000, "num_output: 100", "a blob of shape 1x200000000x100 has too many elements"),
    ],
)
def test_a_recurrent_layer_beyond_all_bounds_is_refused(
    steps: int, streams: int, settings: str, said: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shape in (("cont", f"dim: {steps} dim: {streams}"), ("seq", f"dim: {steps} dim: {streams} dim: 1")):
        job.insert(
            f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {shape} }} }} }}', after=1
        )
    job.insert(_layer("LSTM", ["seq", "cont"], f"recurrent_param {{ {settings} }}"), after=3)
    assert _refused(capsys).startswith(f'net.prototxt:4: layer "x" (LSTM): {said}')


def test_a_matrix_that_is_no_regular_file_is_refused_and_not_waited_for(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe")
    job.insert(_layer("InfogainLoss", ["ip", "label"], 'infogain_loss_param { source: "pipe" }'), after=4)
    said = 'net.prototxt:5: layer "x" (InfogainLoss): pipe: is not a regular file.'
    assert _refused(capsys).startswith(said)


def _refused(capsys: pytest.CaptureFixture[str]) -> str:
    tracemalloc.start()
    try:
        assert run(FORWARD) == 1
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ristretto: ") and err.count("\n") == 1
    return str(err).removeprefix("ristretto: ").rstrip("\n")


def _layer(kind: str, bottoms: list[str], settings: str) -> str:
    read = " ".join(f'bottom: "{blob}"' for blob in bottoms)
    return f'layer {{ name: "x" type: "{kind}" {read} top: "x" {settings} }}'


def _blob(*shape: int, values: int = 0) -> bytes:
    return bytes(new("BlobProto", shape=new("BlobShape", dim=shape), data=[1.0] * values).SerializeToString())
