"""Curves out of training logs, Caffe's and ours."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.train.curves import Curve, Curves, read_curves, running_log

GLOG = "I1120 08:26:57.751245 28616 solver.cpp:218] "
LOG = """Solving LeNet
Learning Rate Policy: inv
Iteration 0, Testing net (#0)
    Test net output #0: accuracy = 0.1
    Test net output #1: loss = 2.3 (* 1 = 2.3 loss)
Iteration 0 (0 iter/s, 0.5s/100 iters), loss = 2.4
    Train net output #0: loss = 2.4 (* 1 = 2.4 loss)
Iteration 0, lr = 0.01
Iteration 100 (12.3 iter/s, 8.1s/100 iters), loss = 0.2
    Train net output #0: loss = 0.19 (* 1 = 0.19 loss)
Iteration 100, lr = 9.9e-03
Snapshotting to binary proto file P_iter_100.caffemodel
Iteration 100, loss = 0.21
Iteration 100, Testing net (#0)
    Test net output #0: accuracy = 0.97
    Test net output #1: loss = 0.3 (* 1 = 0.3 loss)
Optimization Done.
"""


@pytest.fixture
def curves(tmp_path: Path) -> Any:
    """The curves of a log's text; with glog's prefix, as in files, unless plain."""

    def read(text: str, *, plain: bool = False) -> Curves:
        lines = [line if plain else GLOG + line for line in text.splitlines()]
        (tmp_path / "a.log").write_text("\n".join(lines) + "\n")
        return read_curves(tmp_path / "a.log")

    return read


def points(curve: Curve | None) -> list[tuple[int, float]]:
    assert curve is not None
    return list(zip(curve.iterations.tolist(), curve.values.tolist(), strict=True))


@pytest.mark.parametrize("plain", [False, True])
def test_a_log_has_a_loss_a_rate_and_the_outputs_of_both_nets(curves: Any, plain: bool) -> None:
    found = curves(LOG, plain=plain)
    assert points(found.loss) == [(0, 2.4), (100, 0.21)]
    assert points(found.rate) == [(0, 0.01), (100, 0.0099)]
    assert {name: points(curve) for name, curve in found.test.items()} == {
        "accuracy": [(0, 0.1), (100, 0.97)],
        "loss": [(0, 2.3), (100, 0.3)],
    }
    assert points(found.train["loss"]) == [(0, 2.4), (100, 0.19)]
    assert {name: curve.is_loss for name, curve in found.test.items()} == {"accuracy": False, "loss": True}


def test_older_caffes_tell_no_speed(curves: Any) -> None:
    assert points(curves("Iteration 20, loss = 1.5").loss) == [(20, 1.5)]


def test_what_a_resume_runs_again_counts_as_run_last(curves: Any) -> None:
    lines = [f"Iteration {i}, loss = {loss}" for i, loss in ((0, 3), (10, 2), (20, 9), (30, 9), (20, 1), (30, 0.5))]
    assert points(curves("\n".join(lines)).loss) == [(0, 3), (10, 2), (20, 1), (30, 0.5)]


def test_outputs_of_a_second_test_net_and_of_one_name_are_distinguished(curves: Any) -> None:
    found = curves(
        "Iteration 5, Testing net (#0)\nTest net output #0: acc = 0.5\nTest net output #1: per_class = 0.1\n"
        "Test net output #2: per_class = 0.2\nIteration 5, Testing net (#1)\nTest net output #0: acc = 0.75"
    )
    assert {name: points(curve) for name, curve in found.test.items()} == {
        "acc": [(5, 0.5)],
        "per_class #1": [(5, 0.1)],
        "per_class #2": [(5, 0.2)],
        "acc (#1)": [(5, 0.75)],
    }


def test_nan_and_infinity_are_values(curves: Any) -> None:
    found = curves("Iteration 1, loss = nan\nIteration 2, loss = -nan\nIteration 3, loss = inf\nIteration 4, loss = 1")
    assert [math.isnan(value) for value in found.loss.values] == [True, True, False, False]
    assert found.loss.values[2] == math.inf


@pytest.mark.parametrize(
    "text",
    ["", "nothing of interest", "Iteration 5", "Iteration x, loss = 5", "Iteration 1, loss = 1.2.3", "lr = 0.5"],
)
def test_a_file_that_is_no_log_is_reported_with_what_was_looked_for(curves: Any, text: str) -> None:
    with pytest.raises(RistrettoError) as caught:
        curves(text)
    assert 'a.log: contains no training log lines, such as "Iteration 100, loss = 0.2"' in str(caught.value)


def test_bytes_of_all_kinds_are_read_past(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    line = b"\nIteration 7, loss = 0.5\nIteration 99999999999999999999, loss = 1\n"
    (tmp_path / "a.log").write_bytes(noise + line + b"x" * 1_000_000)
    assert points(read_curves(tmp_path / "a.log").loss)[-1] == (7, 0.5)


def test_progress_of_reading_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(LOG)
    reported: list[tuple[int, int, str]] = []
    read_curves(tmp_path / "a.log", lambda *args: reported.append(args))
    assert reported[-1] == (len(LOG), len(LOG), "a.log")


def test_smoothed_values_are_means_of_the_last_ones() -> None:
    curve = Curve(np.arange(4), np.array([1.0, 3.0, 5.0, 1.0]))
    assert curve.smoothed(1).values.tolist() == [1, 3, 5, 1]
    assert curve.smoothed(2).values.tolist() == [1, 2, 4, 3]
    assert curve.smoothed(10).values.tolist() == [1, 2, 3, 2.5]


def test_values_that_are_not_finite_are_left_out_of_means() -> None:
    curve = Curve(np.arange(4), np.array([math.nan, 3.0, math.inf, 5.0]))
    assert np.isnan(curve.smoothed(2).values[0])
    assert curve.smoothed(2).values[1:].tolist() == [3, 3, 5]


def test_a_running_log_collects_lines_that_are_not_shown() -> None:
    logger = logging.getLogger("ristretto")
    level, handlers = logger.level, list(logger.handlers)
    logger.setLevel(logging.ERROR)
    try:
        with running_log() as log:
            assert log.curves("s.prototxt") is None
            logger.info("%s", "Iteration 3 (1 iter/s, 1s/1 iters), loss = 0.25")
        assert logger.level == logging.ERROR and logger.handlers == handlers
        logger.info("%s", "Iteration 4, loss = 0.125")
    finally:
        logger.setLevel(level)
    curves = log.curves("s.prototxt")
    assert curves is not None and curves.loss is not None
    assert (curves.file, curves.loss.iterations.tolist(), curves.loss.values.tolist()) == ("s.prototxt", [3], [0.25])
