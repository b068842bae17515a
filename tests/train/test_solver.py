"""The solver's loop: logging, tests and snapshots, requests by signals, and the numbers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ristretto_cli.caffe_io.net_file import read_solver
from ristretto_cli.caffe_io.weights import read_weights, write_weights
from ristretto_cli.errors import RistrettoError
from ristretto_cli.train.signals import Request
from ristretto_cli.train.solver_settings import settings_of

pytest.importorskip("torch", reason="training needs torch")

# One weight w, so that the loss is (w * x - y)^2 / 2, for one row of data at a time.
NET = """
    name: "line"
    layer { name: "d" type: "HDF5Data" top: "x" top: "y" include { phase: TRAIN }
            hdf5_data_param { source: "train.txt" batch_size: 1 } }
    layer { name: "d" type: "HDF5Data" top: "x" top: "y" include { phase: TEST }
            hdf5_data_param { source: "test.txt" batch_size: 1 } }
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
            inner_product_param { num_output: 1 bias_term: false weight_filler { type: "constant" value: 1 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "y" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.5 lr_policy: "fixed" max_iter: 3\n'
NO_LAST = "snapshot_after_train: false\n"
TESTS = "test_iter: 1 test_interval: 2\n"


def rows(name: str, xs: list[float], ys: list[float]) -> None:
    with h5py.File(f"{name}.h5", "w") as file:
        file["x"] = np.array(xs, np.float32).reshape(-1, 1)
        file["y"] = np.array(ys, np.float32).reshape(-1, 1)
    Path(f"{name}.txt").write_text(f"{name}.h5\n")


class Watched:
    """A training whose lines are kept, and where it saved."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.saved: list[int] = []
        self.solver: Any = None
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        """What was logged, without speeds."""
        return [re.sub(r" \(.* iters\)", "", line) for line in self._caplog.messages]


Open = Callable[..., Any]


@pytest.fixture
def open_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Open:
    """Opens a training of NET, of which only the lines after its opening are kept."""
    from ristretto_cli.train.prepare import TrainingSetup
    from ristretto_cli.train.prepare import open_solver as open_job

    monkeypatch.chdir(tmp_path)
    rows("train", [1, 0, 1], [0, 0, 0])
    rows("test", [1, 2, 3], [0, 0, 0])

    @contextmanager
    def open_training(text: str, *, net: str = NET, after_train: bool = False, **job: Any) -> Iterator[Watched]:
        Path("net.prototxt").write_text(net)
        Path("solver.prototxt").write_text(f"{SOLVER}{'' if after_train else NO_LAST}{text}")
        file = read_solver("solver.prototxt")
        watched = Watched(caplog)
        job.setdefault("write", lambda solver: watched.saved.append(solver.iteration))
        with open_job(TrainingSetup(file, settings_of(file), **job)) as solver:
            watched.solver = solver
            caplog.clear()
            with caplog.at_level(logging.INFO, "ristretto"):
                yield watched

    return open_training


def weight(solver: Any) -> float:
    return float(solver.weights()["fc/0"][0, 0])


def test_the_weight_goes_down_the_gradient(open_solver: Open) -> None:
    with open_solver("") as training:
        assert training.solver.run()
        # rows with x = 1 halve it, that with x = 0 leaves it unchanged
        assert weight(training.solver) == 0.25
        assert training.solver.iteration == 3


def test_gradients_of_iter_size_batches_are_averaged(open_solver: Open) -> None:
    with open_solver("iter_size: 2") as training:
        training.solver.run(until=1)
        assert weight(training.solver) == 0.75  # gradients 1 and 0


def test_the_order_of_log_lines(open_solver: Open) -> None:
    with open_solver(f"{TESTS}display: 2") as training:
        training.solver.run(until=2)
        assert training.lines == [
            "Solving line",
            "Learning Rate Policy: fixed",
            "Iteration 0, Testing net (#0)",
            "    Test net output #0: loss = 0.5 (* 1 = 0.5 loss)",
            "Iteration 0, loss = 0.5",
            "    Train net output #0: loss = 0.5 (* 1 = 0.5 loss)",
            "Iteration 0, lr = 0.5",
            "Iteration 2, loss = 0.125",
            "Iteration 2, Testing net (#0)",
            "    Test net output #0: loss = 0.5 (* 1 = 0.5 loss)",  # the test's second row: (0.5 * 2)^2 / 2
            "Optimization Done.",
        ]


def test_without_test_initialization_the_first_test_comes_later(open_solver: Open) -> None:
    with open_solver(f"{TESTS}test_initialization: false") as training:
        training.solver.run()
        assert [line for line in training.lines if "Testing" in line] == ["Iteration 2, Testing net (#0)"]


def test_a_tests_data_continue_where_the_last_test_ended(open_solver: Open) -> None:
    with open_solver("test_iter: 1 test_interval: 1") as training:
        training.solver.run(until=2)
        tests = [line for line in training.lines if "Test net output" in line]
        # weights 1, 0.5, 0.5 with rows 1, 2, 3
        assert [line.split(" ")[-2] for line in tests] == ["0.5", "0.5", "1.125"]


def test_the_test_loss_is_reported_with_test_compute_loss(open_solver: Open) -> None:
    with open_solver("test_iter: 2 test_interval: 5 test_compute_loss: true") as training:
        training.solver.run(until=1)
        assert "Test loss: 1.25" in training.lines  # (0.5 + 2) / 2


def test_the_displayed_loss_is_a_mean_of_the_last_ones(open_solver: Open) -> None:
    with open_solver("display: 1 average_loss: 2") as training:
        training.solver.run(until=2)
        losses = [line for line in training.lines if line.startswith("Iteration") and "loss" in line]
        assert losses == ["Iteration 0, loss = 0.5", "Iteration 1, loss = 0.25", "Iteration 2, loss = 0.0625"]


def test_snapshots_are_taken_after_updates_and_once_at_the_end(open_solver: Open) -> None:
    with open_solver("snapshot: 2") as training:
        training.solver.run(until=4)
        assert training.saved == [2, 4]
    with open_solver("snapshot: 2", after_train=True) as training:
        training.solver.run(until=3)
        assert training.saved == [2, 3]
    with open_solver("snapshot: 2", after_train=True) as training:
        training.solver.run(until=4)
        assert training.saved == [2, 4]


def asked(*requests: Request) -> Callable[[], Request]:
    """Each request at one asking, then none."""
    waiting = list(requests)
    return lambda: waiting.pop(0) if waiting else Request.NONE


def test_a_stop_from_outside_ends_the_training_after_an_update(open_solver: Open) -> None:
    with open_solver("", request=asked(Request.NONE, Request.STOP)) as training:
        assert not training.solver.run()
        assert training.solver.iteration == 2
        assert training.lines[-1] == "Optimization stopped early."


def test_a_snapshot_from_outside_is_taken_and_the_training_continues(open_solver: Open) -> None:
    with open_solver("", request=asked(Request.SNAPSHOT)) as training:
        assert training.solver.run()
        assert training.saved == [1]


def test_a_test_can_be_interrupted(open_solver: Open) -> None:
    with open_solver(f"{TESTS}", request=asked(Request.SNAPSHOT, Request.STOP)) as training:
        assert not training.solver.run()
        assert training.saved == [0]
        assert training.lines[-2:] == ["Test interrupted.", "Optimization stopped early."]
        assert weight(training.solver) == 1.0


def test_a_training_that_diverges_warns_once_and_continues(open_solver: Open) -> None:
    with open_solver("") as training:
        training.solver.net.set_weights({"fc/0": np.array([[np.nan]], np.float32)})
        assert training.solver.run()
        warnings = [line for line in training.lines if "diverged" in line]
        assert len(warnings) == 1
        assert warnings[0].startswith("The loss of iteration 0 is nan: the training has diverged.")


def test_a_training_resumes_exactly_from_its_state(open_solver: Open) -> None:
    text = "momentum: 0.9 type: 'Adam'"
    with open_solver(text) as training:
        training.solver.run(until=3)
        state, weights = training.solver.state(), {k: v.copy() for k, v in training.solver.weights().items()}
        state = type(state)(state.iteration, state.current_step, tuple(a.copy() for a in state.history))
        training.solver.run(until=6)
        expected = weight(training.solver)
    with open_solver(text) as training:
        training.solver.restore(state, weights)
        training.solver.run(until=6)  # the data start over, here with the same row
        assert weight(training.solver) == expected


def test_the_same_seed_gives_the_same_weights(open_solver: Open) -> None:
    net = NET.replace('type: "constant" value: 1', 'type: "xavier"')
    found = []
    for seed in (1, 1, 2):
        with open_solver(f"random_seed: {seed}", net=net) as training:
            found.append(weight(training.solver))
    assert found[0] == found[1] != found[2]


def test_of_several_files_of_weights_the_last_counts(open_solver: Open) -> None:
    for name, value in (("a", 3.0), ("b", 7.0)):
        write_weights(f"{name}.caffemodel", {"fc": [np.array([[value]], np.float32)]})
    write_weights("other.caffemodel", {"other": [np.zeros(1, np.float32)]})
    with open_solver('weights: "a.caffemodel,b.caffemodel" weights: "other.caffemodel"') as training:
        assert weight(training.solver) == 7.0


def test_snapshot_diff_is_what_the_last_update_took(open_solver: Open) -> None:
    with open_solver("snapshot: 1 snapshot_diff: true", write=None) as training:
        training.solver.run(until=1)
        assert training.solver.differences()["fc/0"].tolist() == [[0.5]]
    assert read_weights("solver_iter_1.caffemodel").layers["fc"][0].array.tolist() == [[0.5]]


def test_debug_info_is_logged_where_the_loss_is(open_solver: Open) -> None:
    with open_solver("display: 2 debug_info: true") as training:
        training.solver.run(until=2)
        assert [line for line in training.lines if line.startswith("    [")] == [
            "    [Forward] Layer d, top blob x data: 1",
            "    [Forward] Layer d, top blob y data: 0",
            "    [Forward] Layer fc, top blob fc data: 1",
            "    [Forward] Layer fc, param blob 0 data: 1",
            "    [Forward] Layer loss, top blob loss data: 0.5",
            "    [Backward] Layer loss, bottom blob fc diff: 1",
            "    [Backward] Layer fc, param blob 0 diff: 1",
            "    [Backward] All net params (data, diff): L1 norm = (1, 1); L2 norm = (1, 1)",
        ]


def test_a_test_net_may_have_layers_of_its_own(open_solver: Open) -> None:
    own = """
        layer { name: "more" type: "InnerProduct" bottom: "fc" top: "more" include { phase: TEST }
                inner_product_param { num_output: 1 weight_filler { type: "constant" value: 4 } } }
    """
    with open_solver("test_iter: 1 test_interval: 1", net=NET + own) as training:
        training.solver.run(until=1)
        assert "    Test net output #1: more = 4" in training.lines


def test_a_layer_that_is_another_in_the_test_net_is_reported_with_its_line(open_solver: Open) -> None:
    net = NET.replace('name: "fc" type', 'name: "fc" include { phase: TRAIN } type') + (
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc2" include { phase: TEST }\n'
        "        inner_product_param { num_output: 2 bias_term: false } }\n"
    )
    net = net.replace(
        'bottom: "fc" bottom: "y" top: "loss" }', 'bottom: "fc" bottom: "y" top: "loss" include { phase: TRAIN } }'
    )
    with pytest.raises(RistrettoError) as refused, open_solver(TESTS, net=net):
        pass
    assert str(refused.value) == (
        'net.prototxt:10: layer "fc" has parameters 2x1 in the test net, but 1x1 in the training net'
    )


def test_a_net_without_a_loss_cannot_be_trained(open_solver: Open) -> None:
    net = NET.replace('type: "EuclideanLoss"', 'type: "Silence"').replace(' top: "loss"', "")
    with pytest.raises(RistrettoError) as refused, open_solver("", net=net):
        pass
    assert str(refused.value).startswith("net.prototxt: the net has no loss, so it cannot be trained.")


def test_a_missing_test_net_is_reported(open_solver: Open) -> None:
    with pytest.raises(RistrettoError) as refused, open_solver(f'{TESTS}test_net: "gone.prototxt"'):
        pass
    assert str(refused.value) == "gone.prototxt: this file does not exist. This is test net #0."
