"""--threads, --cache_mb and --early_stop: what they reach, and that they change no score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.cli.main import run

NET = ["--model=net.prototxt", "--weights=net.caffemodel"]
QUANTIZE = ["quantize", *NET, "--trimming_mode=dynamic_fixed_point", "--iterations=10", "--json=found.json"]


@pytest.fixture
def threads(tried_kernels: None, two_classes: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of threads of each session, except those of probes."""
    two_classes()
    given: list[int] = []
    inner = Session.__init__

    def init(session: Session, *args: Any, threads: int = 0, **settings: Any) -> None:
        given.append(threads)
        inner(session, *args, threads=threads, **settings)

    monkeypatch.setattr(Session, "__init__", init)
    return given


@pytest.mark.parametrize(
    "command",
    [
        ["test", *NET, "--iterations=2"],
        ["forward", *NET, "--output=blobs.npz"],
        ["time", *NET, "--iterations=1"],
        [*QUANTIZE, "--bit_widths=8"],
    ],
    ids=lambda words: words[0],
)
def test_threads_reach_every_session(threads: list[int], command: list[str]) -> None:
    assert run([*command, "--threads=1"]) == 0
    assert set(threads) == {1}
    threads.clear()
    assert run(command) == 0
    assert set(threads) == {0}


def found() -> Any:
    found = json.loads(Path("found.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


@pytest.mark.parametrize("flag", ["--cache_mb=0", "--cache_mb=1", "--threads=1"])
def test_what_is_found_is_the_same(two_classes: Any, flag: str) -> None:
    two_classes()
    assert run(QUANTIZE) == 0
    expected = found()
    assert run([*QUANTIZE, flag]) == 0
    assert found() == expected


def test_early_stop_is_told_in_the_summary_and_the_json(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    assert run([*QUANTIZE, "--early_stop"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "1bit: \t0*" in out
    assert (
        out[out.index("Please fine-tune.") + 1]
        == "* stopped early: the remaining batches could not change whether the candidate passes"
    )
    assert [trial["iterations"] for trial in found()["groups"][0]["trials"]] == [10, 10, 10, 10, 3]
    assert found()["combined"]["iterations"] == 10


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--threads=-1"], 2, "Invalid value for '--threads': -1 is not in the range 0<=x<=1024."),
        (["--cache_mb=-1"], 2, "Invalid value for '--cache_mb': -1 is not in the range 0<=x<=1073741824."),
        (
            ["--early_stop", "--score=loss"],
            1,
            'net.prototxt: --early_stop needs a score with known bounds, but "loss" is not the top of an '
            "Accuracy layer. Omit --early_stop.",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    two_classes: Any, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, message: str
) -> None:
    two_classes()
    assert run([*QUANTIZE, *flags]) == code
    assert message in capsys.readouterr().err
    assert not Path("found.json").exists()
