"""`ristretto plot`: pictures of training logs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ristretto_cli.cli.main import run

LOG = """Solving LeNet
Iteration 0, Testing net (#0)
    Test net output #0: accuracy = 0.1
Iteration 0 (0 iter/s, 0.5s/10 iters), loss = 2.5
Iteration 0, lr = 0.01
Iteration 10 (9 iter/s, 1.1s/10 iters), loss = 0.5
Iteration 10, lr = 0.001
Iteration 20, Testing net (#0)
    Test net output #0: accuracy = 0.9
"""
ARGS = ("plot", "a.log", "--output=curves.svg")

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def ristretto(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command, in a folder with a log, and gives back what stands on stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("a.log").write_text(LOG)

    def call(*args: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        found = run(args)
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return call


@pytest.fixture
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")


@pytest.mark.usefixtures("matplotlib")
def test_a_picture_has_a_panel_for_losses_one_for_outputs_and_one_for_the_rate(ristretto: Run) -> None:
    out, err = ristretto(*ARGS)
    assert (out, err) == ("curves.svg: the curves of 1 log\n", "")
    text = Path("curves.svg").read_text(encoding="utf-8")
    for label in ("loss", "train loss", "outputs", "test accuracy", "learning rate", "lr", "iteration"):
        assert f">{label}</text>" in text


@pytest.mark.usefixtures("matplotlib")
def test_a_log_without_tests_has_no_panel_for_them(ristretto: Run) -> None:
    Path("a.log").write_text("Iteration 3, loss = 2")
    ristretto(*ARGS)
    text = Path("curves.svg").read_text(encoding="utf-8")
    assert ">train loss</text>" in text
    assert ">outputs</text>" not in text
    assert ">learning rate</text>" not in text


@pytest.mark.usefixtures("matplotlib")
def test_several_logs_are_distinguished_by_their_names(ristretto: Run) -> None:
    Path("b.log").write_text(LOG)
    Path("other").mkdir()
    ristretto("plot", "a.log", "b.log", "--output", "curves.svg")
    text = Path("curves.svg").read_text(encoding="utf-8")
    assert ">a.log: train loss</text>" in text
    assert ">b.log: train loss</text>" in text
    Path("b.log").rename("other/a.log")
    ristretto("plot", "a.log", "other/a.log", "-output=curves.svg")
    assert ">other/a.log: train loss</text>" in Path("curves.svg").read_text(encoding="utf-8")


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_log_gives_the_same_bytes_whatever_the_users_style(ristretto: Run, ending: str) -> None:
    pictures = []
    for style in ("", "lines.linewidth: 9\nfigure.facecolor: red\n"):
        Path("matplotlibrc").write_text(style)
        command = [sys.executable, "-m", "ristretto_cli", "plot", "a.log", f"--output=x.{ending}"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "MPLCONFIGDIR": os.getcwd()})  # noqa: PTH109
        pictures.append(Path(f"x.{ending}").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.usefixtures("matplotlib")
def test_a_png_shows_curves(ristretto: Run) -> None:
    ristretto("plot", "a.log", "--output=curves.PNG", "--smooth=2")
    image = cv2.imdecode(np.fromfile("curves.PNG", np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    blue = (image[:, :, 0].astype(int) - image[:, :, 2]) > 100
    assert blue.sum() > 500


@pytest.mark.usefixtures("matplotlib")
def test_names_are_shown_as_they_are(ristretto: Run) -> None:
    """Dollars are no formulas, an underscore hides nothing, and letters that the font lacks are no warnings."""
    Path("a.log").write_text(
        LOG.replace("accuracy", "$x^2_<&\u4e2d") + "    Test net output #1: $\\frac$ = 1\n", encoding="utf-8"
    )
    _, err = ristretto(*ARGS)
    assert err == ""
    assert ">test $x^2_&lt;&amp;\u4e2d</text>" in Path("curves.svg").read_text(encoding="utf-8")


@pytest.mark.usefixtures("matplotlib")
def test_values_that_cannot_be_drawn_are_left_out(ristretto: Run) -> None:
    Path("a.log").write_text("Iteration 1, loss = nan\nIteration 2, loss = 1e39\nIteration 3, lr = 0\n")
    ristretto(*ARGS)
    Path("a.log").write_text("Iteration 1, loss = nan\nIteration 2, loss = inf\nIteration 999999999999, lr = 1e308\n")
    ristretto(*ARGS)


def refused(ristretto: Run, *args: str, code: int = 1) -> str:
    _, err = ristretto(*args, code=code)
    assert not Path("curves.svg").exists()
    return err.removeprefix("ristretto: ")


def test_a_file_that_is_no_log_is_reported_in_one_line(ristretto: Run) -> None:
    Path("b.log").write_text("Testing for 50 iterations.\n")
    said = refused(ristretto, *ARGS, "b.log")
    assert said.startswith('b.log: contains no training log lines, such as "Iteration 100, loss = 0.2"')
    assert said.count("\n") == 1
    assert refused(ristretto, *ARGS, "gone.log") == "gone.log: this file does not exist\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("plot", "--output=x.svg"), 2, "LOG"),
        (("plot", "a.log"), 2, "missing: --output"),
        ((*ARGS, "--smooth=0"), 2, "--smooth"),
        ((*ARGS, "--smoth=3"), 2, "unknown flag --smoth. Did you mean --smooth?"),
        (
            ("plot", "a.log", "--output=curves.gif"),
            1,
            "curves.gif: unsupported format: the name must end in .png or .svg",
        ),
        (("plot", "a.log", "--output=no/x.svg"), 1, "does not exist"),
        (("plot", "a.log", "--output=a.log"), 1, "is an input of this command"),
    ],
)
def test_bad_flags(ristretto: Run, args: tuple[str, ...], code: int, said: str) -> None:
    assert said in refused(ristretto, *args, code=code)
    assert Path("a.log").read_text(encoding="utf-8") == LOG


def test_matplotlib_that_is_missing_is_reported_in_one_line(ristretto: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refused(ristretto, *ARGS) == "drawing needs matplotlib: pip install 'ristretto-cli[plot]'\n"
