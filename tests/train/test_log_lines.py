"""The log of a training: Caffe's lines, as parse_log's regular expressions and the recorded logs have them."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.train import log_lines
from ristretto_cli.train.run import TrainConfig, run

from ..conftest import copy_writable

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
TRAINING = SHARED / "golden" / "training"

SPEED = re.compile(r" \([^()]* iter/s, [^()]*s/\d+ iters\)")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def test_a_displayed_iteration() -> None:
    line = log_lines.iteration(100, 0.2, done=100, seconds=8.13008, display=100)
    assert line == "Iteration 100 (12.3 iter/s, 8.13008s/100 iters), loss = 0.2"


def test_no_time_at_all_is_a_second_as_in_caffe() -> None:
    assert log_lines.iteration(0, 0.5, done=0, seconds=0.0, display=1) == (
        "Iteration 0 (0 iter/s, 0s/1 iters), loss = 0.5"
    )


def test_outputs_are_numbered_value_by_value() -> None:
    outputs = [("accuracy", 0.0, [0.97, 1.0]), ("loss", 0.5, [0.2])]
    assert list(log_lines.test_outputs(outputs)) == [
        "    Test net output #0: accuracy = 0.97",
        "    Test net output #1: accuracy = 1",
        "    Test net output #2: loss = 0.2 (* 0.5 = 0.1 loss)",
    ]
    assert next(log_lines.train_outputs(outputs)) == "    Train net output #0: accuracy = 0.97"


def test_numbers_have_six_digits_and_nan_and_infinity_c_names() -> None:
    numbers = [1234567.0, 1e-7, float("nan"), float("inf"), 0.0002]
    assert [log_lines.rate(1, value).rpartition(" ")[2] for value in numbers] == [
        *("1.23457e+06", "1e-07", "nan", "inf", "0.0002"),
    ]


def test_snapshots_are_reported_with_their_format() -> None:
    assert log_lines.writing_model("P.caffemodel") == "Snapshotting to binary proto file P.caffemodel"
    assert log_lines.writing_model("P.caffemodel.h5") == "Snapshotting to HDF5 file P.caffemodel.h5"
    assert log_lines.writing_state("P.s") == "Snapshotting solver state to binary proto file P.s"
    assert log_lines.writing_state("P.s.h5") == "Snapshotting solver state to HDF5 file P.s.h5"


def test_parse_logs_expressions_find_what_they_look_for() -> None:
    """The patterns that tools/extra/parse_log.py applies to each line."""
    number = r"([\.\deE+-]+)"
    patterns = {
        r"Iteration (\d+)": (log_lines.testing(500, 0), ("500",)),
        rf"Test net output #(\d+): (\S+) = {number}": (
            next(log_lines.test_outputs([("acc", 0.0, [0.97])])),
            ("0", "acc", "0.97"),
        ),
        rf"Train net output #(\d+): (\S+) = {number}": (
            next(log_lines.train_outputs([("loss", 1.0, [2e-05])])),
            ("0", "loss", "2e-05"),
        ),
        r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)": (log_lines.rate(3, 1e-06), ("1e-06", "e-06")),
        r"(Solving)": (log_lines.solving("LeNet"), ("Solving",)),
    }
    for pattern, (line, groups) in patterns.items():
        found = re.search(pattern, line)
        assert found is not None, line
        assert found.groups() == groups


RECORDED = (
    *("solver_test_net", "solver_test_net_noinit", "solver_two_losses", "solver_lr_multistep", "solver_snapshot_hdf5"),
    *("solver_sgd_iter_size_clip", "solver_average_loss", "solver_resume_multistep"),
)


@pytest.mark.parametrize("name", RECORDED)
def test_a_training_logs_the_lines_that_the_original_logged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    if not (TRAINING / name).exists():
        pytest.skip(f"no recorded cases in {TRAINING}")
    copy_writable(TRAINING / name, tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    case: dict[str, Any] = json.loads(Path("case.json").read_text())
    with caplog.at_level(logging.INFO, "ristretto"):
        run(TrainConfig("solver.prototxt", weights=case.get("initial_weights"), snapshot=case.get("resume_from")))
    expected = Path("log.txt").read_text().splitlines()
    reported = [SPEED.sub("", message) for message in caplog.messages]
    start = next(i for i, line in enumerate(reported) if line.startswith("Learning Rate Policy")) + 1
    assert [NUMBER.sub("N", line) for line in reported[start:]] == [NUMBER.sub("N", line) for line in expected]
    numbers, wanted = (
        [float(number) for line in lines for number in NUMBER.findall(line)] for lines in (reported[start:], expected)
    )
    assert numbers == pytest.approx(wanted, rel=1e-4, abs=2e-5)
