"""Every recorded case of files, as a user runs it: each kind by its command, from the exit code to what is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import enum_value
from ristretto_cli.caffe_io.weights import read_net_binary
from ristretto_cli.cli.main import run
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.net_files import load_net

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
IO = SHARED / "golden" / "io"
UPGRADES = {
    "upgrade_net_text": ("upgrade_net_proto_text", "prototxt"),
    "upgrade_net_binary": ("upgrade_net_proto_binary", "caffemodel"),
    "upgrade_solver_text": ("upgrade_solver_proto_text", "prototxt"),
}
LOG = re.compile(r"[IW]\d{4} [0-9:.]+ +\d+ \w+\.py:\d+\] .+")
LOCATED = re.compile(r"ristretto: (net\.prototxt|solver\.prototxt):\d+(:\d+)?: .+|ristretto: weights\.caffemodel: .+")
COVERED = {"data", "forward", "error", "net_state", *UPGRADES}


def cases(*operations: str, again: str = "") -> list[Any]:
    """The recorded cases of these kinds. again: what is looked at in a second test, so that it counts apart."""
    found = []
    for path in sorted(IO.glob("*/case.json")):
        case = json.loads(path.read_text())
        operation = case.get("operation", "forward")
        if operation in operations:
            found.append(pytest.param(path.parent, case, id=f"io {operation}{again}/{path.parent.name}"))
    return found or [pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {IO}"))]


def test_each_kind_of_case_has_a_test_here() -> None:
    kinds = {json.loads(path.read_text()).get("operation", "forward") for path in IO.glob("*/case.json")}
    if not kinds:
        pytest.skip(f"no recorded cases in {IO}")
    assert kinds == COVERED


@pytest.mark.parametrize(("folder", "case"), cases("data", "forward"))
def test_forward_writes_what_the_original_had(
    folder: Path, case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_without_plyvel(folder)
    monkeypatch.chdir(folder)
    weights = case.get("weights") or next((p.name for p in Path().glob("weights.*")), None)
    args = ["forward", "--model=net.prototxt", f"--output={tmp_path}/out.npz", f"--phase={case['phase']}"]
    args += [f"--weights={weights}"] if weights else []
    args += ["--input=inputs.npz"] if Path("inputs.npz").exists() else []
    assert run(args) == 0
    expected = _arrays(Path("outputs.npz"))
    found = _arrays(tmp_path / "out.npz")
    first = {key: array for key, array in expected.items() if "@pass" not in key}
    assert first
    assert set(first) <= set(found)
    for key, array in first.items():
        np.testing.assert_allclose(found[key], array, **case["tolerance"], err_msg=key)


@pytest.mark.parametrize(
    ("folder", "case"),
    [param for param in cases("data", again=", further batches") if param.values[1].get("passes", 1) > 1],
)
def test_further_batches_of_a_net_are_those_of_the_original(
    folder: Path, case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_without_plyvel(folder)
    if "batch1" in folder.name:
        pytest.skip("images of different sizes: the shapes of a net are known before its first batch")
    monkeypatch.chdir(folder)
    net = load_net("net.prototxt", None, NetState(enum_value("Phase", case["phase"])), rng=np.random.default_rng(0))
    expected = _arrays(Path("outputs.npz"))
    with DataLoader(net) as feeds:
        for turn in range(1, case["passes"] + 1):
            for top, array in feeds.next().items():
                recorded = expected[top if turn == 1 else f"{top}@pass{turn}"]
                np.testing.assert_allclose(array, recorded, **case["tolerance"], err_msg=f"{top}, pass {turn}")


@pytest.mark.parametrize(("folder", "case"), cases(*UPGRADES))
def test_an_upgrade_writes_what_the_original_wrote(folder: Path, case: Mapping[str, Any], tmp_path: Path) -> None:
    command, kind = UPGRADES[case["operation"]]
    output, expected = tmp_path / f"out.{kind}", folder / f"expected.{kind}"
    assert run([command, str(folder / f"input.{kind}"), str(output)]) == case["exit_code"]
    if kind == "caffemodel":
        assert read_net_binary(output) == read_net_binary(expected)
    else:
        assert output.read_text() == expected.read_text()


@pytest.mark.parametrize(("folder", "case"), cases("upgrade_net_text", again=", again"))
def test_an_upgraded_net_needs_no_upgrade(folder: Path, case: Mapping[str, Any], tmp_path: Path) -> None:
    assert run([UPGRADES["upgrade_net_text"][0], str(folder / "expected.prototxt"), f"{tmp_path}/again"]) == 0
    assert (tmp_path / "again").read_text() == (folder / "expected.prototxt").read_text()


@pytest.mark.parametrize(("folder", "case"), cases("error"))
def test_what_the_original_refuses_is_refused_by_a_line_that_says_where(
    folder: Path,
    case: Mapping[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "not implemented on CPU" in case["message"]:
        pytest.skip("the original's CPU code lacks what we have")
    if folder.name == "error_solver_no_net":
        pytest.skip("solvers are read only by upgrade_solver_proto_text, which needs no net")
    monkeypatch.chdir(folder)
    output = tmp_path / "out"
    if Path("net.prototxt").exists() and case["stage"] != "training":
        weights = case.get("weights")
        args = ["forward", "--model=net.prototxt", f"--output={output}", f"--phase={case['phase']}"]
        args += [f"--weights={weights}"] if weights else ["--allow_missing_weights"]
        args += ["--input=inputs.npz"] if Path("inputs.npz").exists() else []
    else:
        args = ["upgrade_solver_proto_text", "solver.prototxt", str(output)]
    assert run(args) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert not output.exists()
    reported = [line for line in err.splitlines() if not LOG.fullmatch(line)]
    assert reported
    assert [line for line in reported if not LOCATED.fullmatch(line)] == []


@pytest.mark.parametrize(("folder", "case"), cases("net_state"))
def test_summary_lists_the_layers_of_a_state_of_the_original(
    folder: Path, case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for number, state in enumerate(json.loads(Path("expected.json").read_text())):
        reported = tmp_path / f"{number}.json"
        flags = [f"--phase={state['phase']}", f"--level={state['level']}", f"--stage={','.join(state['stages'])}"]
        assert run(["summary", "--model=net.prototxt", f"--json={reported}", *flags]) == 0
        assert [layer["name"] for layer in json.loads(reported.read_text())["layers"]] == state["layers"]


def _skip_without_plyvel(folder: Path) -> None:
    if folder.name.startswith("leveldb"):
        pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel")


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}
