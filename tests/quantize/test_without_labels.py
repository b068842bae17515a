"""Quantization scored without labels: by the agreement with the float net, or by the signal to noise ratio."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.cli.main import run
from ristretto_cli.quantize.config import ReuseOptions
from ristretto_cli.quantize.pipeline import quantize
from ristretto_cli.quantize.result import QuantizationResult

from ..conftest import IDENTITY, NET
from .test_unscored import GIVEN, without

NO_HEAD = without(NET, "Accuracy", "SoftmaxWithLoss")
SOFTMAX = NO_HEAD + 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
FLAGS = ["quantize", "--model=net.prototxt", "--weights=net.caffemodel", "--trimming_mode=dynamic_fixed_point"]
SHORT = [*FLAGS, "--iterations=2", "--calibration_iterations=2"]


def bits(outcome: QuantizationResult) -> list[int]:
    return [group.bits for group in outcome.search.groups]


def scores(outcome: QuantizationResult, group: int) -> list[float]:
    return [trial.score for trial in outcome.search.groups[group].trials]


def test_a_classifier_without_labels_is_scored_by_its_agreement_with_the_float_net(two_classes: Any) -> None:
    # 2 bits change no class of the weights; with 1 bit they are 0, and half of the images have the class of a tie.
    # Pixels of 200/256 and 50/256 differ with 2 bits or more.
    outcome = quantize(two_classes().job(text=SOFTMAX))
    assert (outcome.score_blob, outcome.baseline) == ("agreement:prob", 1.0)
    assert bits(outcome) == [2, 2, 4]  # the combined net needs wider activations
    assert scores(outcome, 0) == [1, 1, 1, 1, 0.5]
    assert scores(outcome, 2) == [1, 1, 1, 1, 0.5]


def test_wrong_labels_do_not_matter(two_classes: Any) -> None:
    by_labels = quantize(two_classes().job())
    outcome = quantize(two_classes().job(score="agreement"))
    assert by_labels.baseline == pytest.approx(0.8)
    assert (outcome.score_blob, outcome.baseline) == ("agreement:fc", 1.0)
    assert bits(outcome) == bits(by_labels) == [2, 2, 4]
    lines = outcome.notes()
    assert lines[:2] == [
        "Scored by agreement:fc, the share of images with the class of the float net: higher is better.",
        "The error margin is kept: agreement:fc is equal to the baseline; the margin is 2 percentage points.",
    ]
    assert any(line.startswith("accuracy: 0.8, ") for line in lines)
    assert "Score: 1" in outcome.summary_lines()


def test_the_signal_to_noise_ratio_is_in_decibels(two_classes: Any) -> None:
    # Weights of 1 are 127/128 with 8 bits, a noise of 1/128 of the signal: 42.1 dB; with 4 bits 7/8: 18.1 dB.
    outcome = quantize(two_classes().job(text=NO_HEAD, score="sqnr"))
    assert (outcome.score_blob, outcome.baseline) == ("sqnr:fc", math.inf)
    assert scores(outcome, 0)[1:] == pytest.approx([20 * math.log10(128), 20 * math.log10(8)])
    assert bits(outcome)[0] == 8
    lower = quantize(two_classes().job(text=NO_HEAD, score="sqnr", min_sqnr=18.0, hold_margin=False))
    assert bits(lower)[0] == 4


def test_the_noise_of_all_predictions_is_reported_beside_the_score(two_classes: Any) -> None:
    other = (
        'layer { name: "box" type: "InnerProduct" bottom: "data" top: "box" inner_product_param { num_output: 1 '
        + ("bias_term: false } }\n")
    )
    files = two_classes(weights={**IDENTITY, "box": [[[1, 1]]]})
    outcome = quantize(files.job(text=SOFTMAX + other))
    notes = outcome.notes()
    assert notes[0].startswith("Scored by agreement:prob, ")
    shown = notes[notes.index("Other outputs (float net, quantized net):") + 1 :]
    assert [line.partition(", ")[0] for line in shown[:2]] == ["sqnr:prob: inf", "sqnr:box: inf"]
    by_noise = quantize(files.job(text=SOFTMAX + other, score="sqnr:box"))
    assert [output.blob for output in by_noise.baseline_scores.outputs] == ["sqnr:box", "sqnr:prob"]


def test_a_ratio_that_is_missed_is_reported(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes().workshop.net(NO_HEAD)
    assert run([*SHORT, "--score=sqnr:conv", "--min_sqnr=200", GIVEN, "--json=found.json"]) == 0
    found = json.loads(Path("found.json").read_text())
    assert (found["score"], found["min_sqnr"], found["error_margin"]) == ("sqnr:conv", 200, None)
    assert not found["combined"]["passed"]
    score = found["combined"]["score"]
    assert found["combined"]["worse_by"] == pytest.approx(200 - score)
    reported = capsys.readouterr()
    verdict = f"The lowest allowed score is missed: sqnr:conv is {score:g} dB; the lowest is 200 dB."
    assert verdict in reported.out
    assert "The score must be at least 200 dB." in reported.err
    assert "are not reliable" not in reported.err  # the float net's own ratio is infinite, as it should be


@pytest.mark.parametrize("score", ["agreement", "sqnr", "sqnr:conv"])
def test_scores_do_not_depend_on_what_is_cached(two_classes: Any, score: str) -> None:
    job = two_classes().job(text=SOFTMAX, score=score, bit_widths=(8, 4, 2))
    shared = quantize(job)
    for settings in ({"cache_mb": 0}, {"reuse": ReuseOptions(prefixes=False, equal_nets=False, float_outputs=False)}):
        other = quantize(two_classes().job(text=SOFTMAX, score=score, bit_widths=(8, 4, 2), **settings))
        assert other.search == shared.search


def test_a_cache_on_disk_holds_the_float_outputs(two_classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ristretto_cli.scoring.array_cache import ArrayCache

    expected = quantize(two_classes().job(text=SOFTMAX))
    budget = ArrayCache.__init__
    monkeypatch.setattr(ArrayCache, "__init__", lambda cache, memory_bytes: budget(cache, 0))
    assert quantize(two_classes().job(text=SOFTMAX)).search == expected.search


def test_a_full_cache_makes_the_float_net_run_again(two_classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ristretto_cli.scoring.array_cache import ArrayCache

    expected = quantize(two_classes().job(text=SOFTMAX, iterations=4))
    put = ArrayCache.put
    stored: list[object] = []

    def put_some(cache: ArrayCache, arrays: Any) -> Any:
        stored.append(arrays)
        cache.full = len(stored) > 5
        return put(cache, arrays)

    monkeypatch.setattr(ArrayCache, "put", put_some)
    assert quantize(two_classes().job(text=SOFTMAX, iterations=4)).search == expected.search
    assert len(stored) > 5


def test_agreement_can_stop_early(two_classes: Any) -> None:
    in_full = quantize(two_classes().job(text=SOFTMAX, iterations=10))
    stopping = quantize(two_classes().job(text=SOFTMAX, iterations=10, early_stop=True))
    assert bits(stopping) == bits(in_full)
    assert any(trial.stopped for group in stopping.search.groups for trial in group.trials)


def test_given_widths_are_scored_too(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(text=SOFTMAX, bw={"conv_params": 1, "fc_params": 8, "layer": 8}))
    assert outcome.search.combined is not None
    assert (outcome.search.combined.score, outcome.search.combined.passed) == (0.5, False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--score=sqnr", "--error_margin=2", "--score_goal=max"],
            "--error_margin, --score_goal: no effect with the score sqnr:fc. "
            "Its lowest allowed value is --min_sqnr, in dB.",
        ),
        (["--score=sqnr", "--error_margin_absolute=2"], "--error_margin_absolute: no effect with the score sqnr:fc."),
        (["--score=agreement", "--min_sqnr=30"], "--min_sqnr: no effect with the score agreement:fc"),
        (["--score=accuracy", "--min_sqnr=30"], "--min_sqnr: no effect with the score accuracy"),
        (["--min_sqnr=30", "--legacy"], "--min_sqnr has no effect with --legacy"),
        (["--score=agreement", "--legacy"], "--score agreement has no effect with --legacy"),
        (["--min_sqnr=nan"], "Invalid value for '--min_sqnr'"),
    ],
)
def test_flags_of_another_score_are_refused(
    two_classes: Any, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    two_classes()
    assert run([*SHORT, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not Path("quantized.prototxt").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--score=sqnr", "--early_stop"], '--early_stop needs a score with known bounds, but "sqnr:fc"'),
    ],
)
def test_scores_that_are_not_possible(
    two_classes: Any, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    two_classes()
    assert run([*SHORT, *flags]) == 1
    assert message in capsys.readouterr().err


def test_test_compares_a_written_net_with_its_float_net(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes().workshop.net(SOFTMAX)
    assert run([*SHORT, "--json=found.json"]) == 0
    combined = json.loads(Path("found.json").read_text())["combined"]
    capsys.readouterr()
    against = ["test", "--iterations=2", "--against=net.prototxt"]
    assert run([*against, "--json=scores.json"]) == 0
    reported = capsys.readouterr()
    assert "Comparing with net.prototxt with net.caffemodel." in reported.err
    data = json.loads(Path("scores.json").read_text())
    assert (data["against"], data["against_weights"]) == ("net.prototxt", "net.caffemodel")
    assert list(data["outputs"]) == ["agreement:prob", "sqnr:prob"]
    assert data["outputs"]["agreement:prob"] == [combined["score"]]
    ratio = data["outputs"]["sqnr:prob"][0]
    assert reported.out.splitlines() == ["Loss: 0", "agreement:prob = 1", f"sqnr:prob = {ratio:g}"]
    assert run([*against, "--score=sqnr:conv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("sqnr:conv = ")
    assert run(["test", "--model=net.prototxt", "--weights=net.caffemodel", *against[1:], "--score=sqnr"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["sqnr:prob = inf"]


def test_the_float_net_may_have_weights_of_its_own(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    files = two_classes()
    files.workshop.weights({"conv": [[[[[1]], [[0]]], [[[0]], [[1]]]]], "fc": [[[0, 1], [1, 0]]]}, "swapped.caffemodel")
    test = ["test", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2", "--against=net.prototxt"]
    assert run([*test, "--against_weights=swapped.caffemodel", "--score=agreement"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "agreement:fc = 0"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            SOFTMAX.replace("batch_size: 5", "batch_size: 2"),
            1,
            'other.prototxt: its input "data" is 2x2x1x1, but in net.prototxt it is 5x2x1x1. '
            "Both nets must read the same data.",
        ),
        (
            SOFTMAX.replace('"prob"', '"probability"'),
            1,
            'other.prototxt: its blob "prob" is missing, but in net.prototxt it is 5x2. '
            "Choose a blob of both nets with --score.",
        ),
    ],
)
def test_nets_that_cannot_be_compared(
    two_classes: Any, capsys: pytest.CaptureFixture[str], text: str, code: int, message: str
) -> None:
    files = two_classes()
    files.workshop.net(SOFTMAX)
    files.workshop.net(text, "other.prototxt")
    test = ["test", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2"]
    assert run([*test, "--against=other.prototxt"]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--score=agreement", "--against_weights=net.caffemodel"])
def test_flags_of_a_comparison_need_the_other_net(
    two_classes: Any, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    two_classes()
    assert run(["test", "--model=net.prototxt", "--weights=net.caffemodel", flag]) == 2
    assert f"{flag.partition('=')[0]} has no effect without --against" in capsys.readouterr().err
