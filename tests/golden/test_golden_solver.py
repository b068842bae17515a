"""Every recorded training: weights, history, losses, rates and log lines after the same iterations."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.net_file import read_solver
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.errors import RistrettoError

from ..conftest import copy_writable

pytest.importorskip("torch", reason="training needs torch")

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
TRAINING = SHARED / "golden" / "training"
SPEED = re.compile(r" \([^()]* iter/s, [^()]* iters\)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?|nan|inf")


def cases() -> list[Any]:
    found = [
        pytest.param(path.parent, json.loads(path.read_text()), id=f"training/{path.parent.name}")
        for path in sorted(TRAINING.glob("solver_*/case.json"))
    ]
    return found or [pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {TRAINING}"))]


@pytest.mark.parametrize(("folder", "case"), cases())
def test_a_training_gives_what_the_original_gave(
    folder: Path,
    case: Mapping[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ristretto_cli.train.prepare import TrainingSetup, open_solver, resume, save
    from ristretto_cli.train.solver_settings import settings_of

    copy_writable(folder, tmp_path)
    monkeypatch.chdir(tmp_path)
    solver_file = read_solver(case["solver"])
    if "initial_weights" in case:
        solver_file.message.weights[:] = [case["initial_weights"]]
    found: dict[str, Any] = {}

    def keep(solver: Any) -> None:
        # The pass after the last snapshot, for the displayed loss, updates the statistics of BatchNorm once more.
        save(solver)
        found.update({f"param:{key}": array.copy() for key, array in solver.weights().items()})
        found.update({f"history:{i}": array.copy() for i, array in enumerate(solver.history)})

    with open_solver(TrainingSetup(solver_file, settings_of(solver_file), write=keep)) as solver:
        if "resume_from" in case:
            resume(solver, case["resume_from"])
        caplog.clear()
        with caplog.at_level(logging.INFO, "ristretto"):
            assert solver.run()
    assert solver.iteration == case["iterations"]
    assert solver.current_step == case["current_step"]

    expected = np.load("outputs.npz")
    arrays = {key for key in expected.files if key.startswith(("param:", "history:"))}
    assert found.keys() == arrays
    for key in arrays:
        np.testing.assert_allclose(found[key], expected[key], **case["tolerance"], err_msg=key)
    _compare_files(case)
    _compare_lines(caplog.messages, case)


def refused_solvers() -> list[Any]:
    found = []
    for path in sorted((SHARED / "golden" / "io").glob("error_*/case.json")):
        if json.loads(path.read_text())["stage"] == "training":
            found.append(pytest.param(path.parent, id=f"io/{path.parent.name}"))
    return found or [pytest.param(None, marks=pytest.mark.skip(f"no recorded cases in {SHARED}"))]


@pytest.mark.parametrize("folder", refused_solvers())
def test_a_solver_that_the_original_refuses_is_refused(folder: Path) -> None:
    from ristretto_cli.train.solver_settings import settings_of

    with pytest.raises(RistrettoError) as refused:
        settings_of(read_solver(folder / "solver.prototxt"))
    assert str(refused.value).startswith(f"{folder / 'solver.prototxt'}")


def _compare_files(case: Mapping[str, Any]) -> None:
    """The model file has what the original's has, and the gradients with snapshot_diff."""
    theirs = read_weights(case["expected_model"])
    ours = read_weights(Path(case["expected_model"]).name)
    assert ours.layers.keys() == theirs.layers.keys()
    for name, blobs in theirs.layers.items():
        for mine, blob in zip(ours.layers[name], blobs, strict=True):
            np.testing.assert_allclose(mine.array, blob.array, **case["tolerance"], err_msg=name)
    if not case["expected_model"].endswith(".h5"):
        for name, diffs in _diffs(case["expected_model"]).items():
            for mine, diff in zip(_diffs(Path(case["expected_model"]).name)[name], diffs, strict=True):
                np.testing.assert_allclose(mine, diff, **case["tolerance"], err_msg=f"{name}'s gradient")


def _diffs(path: str) -> dict[str, list[list[float]]]:
    from ristretto_cli.caffe_io.weights import read_net_binary

    layers = [layer for layer in read_net_binary(path).layer if layer.blobs]
    return {layer.name: [list(blob.diff) for blob in layer.blobs] for layer in layers}


def _compare_lines(messages: list[str], case: Mapping[str, Any]) -> None:
    """The same lines, except speeds, with numbers within the tolerance and a digit of what is printed."""
    lines = [SPEED.sub("", line) for line in messages if not line.startswith(("Solving ", "Learning Rate Policy: "))]
    expected = Path("log.txt").read_text().splitlines()
    assert expected[-1] == "Optimization Done."  # the tool's own, after the solver's
    expected = [line for line in expected[:-1] if not line.startswith(("Restoring", "SGDSolver: "))]
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", line) for line in expected]
    tolerance = case["tolerance"]
    if case["semantics"] == "ristretto-cpu":
        expected.pop(-2)  # the loss after the update is one of weights that are rounded at random
        lines.pop(-2)
    for line, wanted in zip(lines, expected, strict=True):
        numbers, wanteds = ([float(n) for n in NUMBER.findall(text)] for text in (line, wanted))
        np.testing.assert_allclose(
            numbers, wanteds, rtol=tolerance["rtol"] + 1e-5, atol=tolerance["atol"], err_msg=wanted
        )
