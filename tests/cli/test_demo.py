"""`ristretto demo`: the example from the package's own files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ristretto_cli.cli.main import run
from ristretto_cli.demo import steps

MODELS = Path(__file__).resolve().parents[2] / "models" / "digits"


def test_the_package_has_the_files_of_the_repository() -> None:
    packed = Path(steps.__file__).parent / "digits"
    names = {"digits.caffemodel", "digits.npz", "readme.md", "solver_finetune.prototxt", "train_val.prototxt"}
    assert {file.name for file in packed.iterdir()} == names
    assert all((packed / name).read_bytes() == (MODELS / name).read_bytes() for name in names)


def test_the_demo_quantizes_scores_lists_and_exports(tmp_path: Path) -> None:
    # Without torch, which takes long; from another folder than that of the package.
    hidden = "import sys; from ristretto_cli.demo import steps; steps.can_train = lambda: False; "
    program = hidden + "from ristretto_cli.cli.main import run; sys.exit(run(['demo', 'a/new']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(steps.__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "digits_train_lmdb: 1437 images\ndigits_test_lmdb: 360 images\n" in done.stdout
    shown = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ ristretto")]
    assert shown == ["quantize", "test", "summary", "export", "quantize"]  # the last one is for the user's net
    (score,) = re.findall(r"^accuracy = (.*)$", done.stdout, flags=re.MULTILINE)
    assert float(score) >= 356 / 360 - 0.02
    assert "pip install 'ristretto-cli[train]'" in done.stdout
    folder = tmp_path / "a" / "new"
    assert {"quantized.prototxt", "digits.onnx", "digits_train_lmdb", "digits_test_lmdb"} <= {
        file.name for file in folder.iterdir()
    }


def test_a_step_that_fails_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = steps.Step("Break", ("summary", "--model", "missing.prototxt"))
    monkeypatch.setattr(steps, "_ALWAYS", (broken, steps.QUANTIZE))
    assert run(["demo", str(tmp_path / "new")]) == 1
    captured = capfd.readouterr()
    assert "missing.prototxt" in captured.err
    assert "Quantize" not in captured.out


def test_a_folder_with_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert run(["demo", str(tmp_path)]) == 1
    assert "the folder is not empty. Name a new one: ristretto demo DIR" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["demo", str(tmp_path / "file" / "new")]) == 1
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_the_steps_end_with_fine_tuning_if_torch_is_there() -> None:
    with_torch, without = steps.steps(train=True), steps.steps(train=False)
    assert with_torch[: len(without)] == without
    assert [step.arguments[0] for step in with_torch[len(without) :]] == ["train", "test"]
