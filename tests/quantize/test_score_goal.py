"""Nets that are scored by a loss: the meaning of their margin, and whole jobs on a net that outputs a number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.cli.main import run
from ristretto_cli.quantize.config import QuantizeConfig
from ristretto_cli.quantize.margin import Goal, Margin, Unit
from ristretto_cli.quantize.pipeline import quantize
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.scoring.metrics import is_loss

from ..conftest import IDENTITY, NET

# The second pixel of an image is to be its label. With pixels of 200 / 256 and 50 / 256 an image with the right
# label costs (50 / 256)^2 or (56 / 256)^2, one of the two with a wrong one (206 / 256)^2 or (200 / 256)^2; half
# the mean over ten images: (4 * 0.03815 + 4 * 0.04785 + 0.64752 + 0.61035) / 20 = 0.08009.
REGRESSION = NET[: NET.index('layer { name: "fc"')] + (
    'layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" '
    "inner_product_param { num_output: 1 bias_term: false } }\n"
    'layer { name: "l2" type: "EuclideanLoss" bottom: "fc" bottom: "label" top: "l2" }\n'
)
SECOND_PIXEL = {**IDENTITY, "fc": [[[0, 1]]]}


@pytest.fixture
def regress(two_classes: Any) -> Any:
    """A job for the net that outputs a number."""
    files = two_classes(weights=SECOND_PIXEL)

    def make(mode: str = "dynamic_fixed_point", text: str = REGRESSION, **settings: Any) -> Any:
        return files.job(mode, text=text, **{"score": "l2", **settings})

    return make


def bits(outcome: QuantizationResult) -> list[int]:
    return [group.bits for group in outcome.search.groups]


# --- the margin


@pytest.mark.parametrize(
    ("score", "allowed"), [(0.5, True), (0.51, True), (0.5101, False), (0.1, True), (math.nan, False)]
)
def test_a_loss_may_be_the_margin_above_the_baseline_in_percent_of_it(score: float, allowed: bool) -> None:
    assert Margin(0.5, 2.0, goal=Goal.MIN).allows(score) is allowed


@pytest.mark.parametrize(("score", "allowed"), [(1.02e-5, True), (1.021e-5, False)])
def test_the_margin_of_a_loss_follows_its_magnitude(score: float, allowed: bool) -> None:
    assert Margin(1e-5, 2.0, goal=Goal.MIN).allows(score) is allowed


@pytest.mark.parametrize(("score", "allowed"), [(-50.0, True), (-49.0, True), (-48.9, False), (-60.0, True)])
def test_below_zero_the_margin_of_a_loss_is_of_its_magnitude(score: float, allowed: bool) -> None:
    assert Margin(-50.0, 2.0, goal=Goal.MIN).allows(score) is allowed


def test_above_a_loss_of_zero_nothing_is_allowed() -> None:
    assert Margin(0.0, 2.0, goal=Goal.MIN).allows(0.0)
    assert not Margin(0.0, 2.0, goal=Goal.MIN).allows(1e-30)


def test_a_baseline_that_is_no_number_allows_nothing() -> None:
    assert not Margin(math.nan, 2.0, goal=Goal.MIN).allows(0.0)


@pytest.mark.parametrize(
    ("margin", "score", "missed"),
    [
        (Margin(0.9, 2.0), 0.75, 15.0),
        (Margin(0.5, 2.0, goal=Goal.MIN), 0.75, 50.0),
        (Margin(-0.5, 2.0, goal=Goal.MIN), -0.25, 50.0),
        (Margin(0.0, 2.0, goal=Goal.MIN), 0.25, math.inf),
        (Margin(0.0, 2.0, goal=Goal.MIN), 0.0, 0.0),
    ],
)
def test_how_far_a_score_is_from_the_baseline_has_the_margins_unit(margin: Margin, score: float, missed: float) -> None:
    assert margin.missed_by(score) == pytest.approx(missed)


@pytest.mark.parametrize(
    ("margin", "score", "allowed"),
    [
        (Margin(0.0, 1e-6, goal=Goal.MIN, of_unit=Unit.SCORE), 3.7e-7, True),
        (Margin(0.0, 1e-6, goal=Goal.MIN, of_unit=Unit.SCORE), 1.1e-6, False),
        (Margin(0.0, 0.0, goal=Goal.MIN, of_unit=Unit.SCORE), 0.0, True),
        (Margin(-50.0, 2.0, goal=Goal.MIN, of_unit=Unit.SCORE), -48.0, True),
        (Margin(-50.0, 2.0, goal=Goal.MIN, of_unit=Unit.SCORE), -47.9, False),
        (Margin(31.5, 0.5, of_unit=Unit.SCORE), 31.0, True),
        (Margin(31.5, 0.5, of_unit=Unit.SCORE), 30.9, False),
        (Margin(0.0, 1.0, goal=Goal.MIN, of_unit=Unit.SCORE), math.nan, False),
    ],
)
def test_an_absolute_margin_has_the_unit_of_the_score(margin: Margin, score: float, allowed: bool) -> None:
    assert margin.allows(score) is allowed


# --- what is a loss


def test_a_loss_is_what_a_loss_layer_makes_or_what_has_a_loss_weight(workshop: Any) -> None:
    net = workshop.load("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 } } }
        layer { name: "a" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "a" }
        layer { name: "b" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "b" loss_weight: 0 }
        layer { name: "c" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "c" loss_weight: -1 }
        layer { name: "d" type: "Power" bottom: "x" top: "d" }
        layer { name: "e" type: "Power" bottom: "x" top: "e" loss_weight: 1 }
        """)
    assert {name: is_loss(net, name) for name in ("a", "b", "c", "d", "e", "x")} == {
        "a": True,
        "b": True,
        "c": False,
        "d": False,
        "e": True,
        "x": False,
    }


# --- whole jobs


def test_a_loss_is_held_to_percent_of_itself(regress: Any) -> None:
    # Weights of 1 become 127/128 with 8 bits (0.0802), 7/8 with 4 (0.0836), 1/2 with 2 (0.1245). Pixels of 200/256
    # and 50/256 are kept with 16 and 8 bits, are 6/8 and 2/8 with 4 (0.08125), and 1 and 0 with 2 (0.1).
    outcome = quantize(regress())
    assert outcome.baseline == pytest.approx(0.080093, abs=1e-5)
    assert bits(outcome) == [8, 8, 4]
    trials = [[trial.score for trial in group.trials] for group in outcome.search.groups]
    assert trials[0][1:] == pytest.approx([0.0802, 0.0836], abs=1e-4)
    assert trials[2] == pytest.approx([0.0801, 0.0801, 0.08125, 0.1], abs=1e-4)


def test_a_wider_margin_allows_a_larger_loss(regress: Any) -> None:
    assert bits(quantize(regress(error_margin_percent=5.0, hold_margin=False))) == [4, 4, 4]


SHARPEN = """
    layer { name: "low" type: "Data" top: "low" data_param { source: "low" batch_size: 4 backend: LMDB } }
    layer { name: "high" type: "Data" top: "high" data_param { source: "high" batch_size: 4 backend: LMDB } }
    layer { name: "blur" type: "Convolution" bottom: "low" top: "blur"
            convolution_param { num_output: 1 kernel_size: 3 pad: 1 bias_term: false } }
    layer { name: "out" type: "Convolution" bottom: "blur" top: "out"
            convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
    layer { name: "l2" type: "EuclideanLoss" bottom: "out" bottom: "high" top: "l2" }
"""


@pytest.mark.parametrize(("legacy", "least", "most"), [(False, -0.01, 0.01), (True, 1.0, 1e9)])
def test_16_bits_keep_the_loss_of_a_net_that_gives_numbers(
    workshop: Any, legacy: bool, least: float, most: float
) -> None:
    """Such a loss is small compared with the values, so a few saturated ones would dominate it."""
    rng = np.random.default_rng(10)
    low = rng.uniform(0, 0.98, (12, 1, 10, 10))
    kernel = np.full((1, 1, 3, 3), 0.06)
    kernel[0, 0, 1, 1] = 0.52
    padded = np.pad(low, ((0, 0), (0, 0), (1, 1), (1, 1)))
    high = sum(kernel[0, 0, i, j] * padded[:, :, i : i + 10, j : j + 10] for i in range(3) for j in range(3))
    workshop.database("low", low)
    workshop.database("high", high + rng.normal(0, 0.02, low.shape))
    job = QuantizeConfig(
        model=workshop.net(SHARPEN),
        weights=workshop.weights({"blur": [kernel], "out": [np.ones((1, 1, 1, 1))]}),
        model_quantized="q.prototxt",
        trimming_mode="dynamic_fixed_point",
        iterations=3,
        calibration_iterations=1,
        score="l2",
        bw=dict.fromkeys(("conv_params", "fc_params", "layer"), 16),
        legacy=legacy,
    )
    outcome = quantize(job)
    assert outcome.search.combined is not None
    assert least < outcome.search.combined.score / outcome.baseline - 1 < most


def test_minifloat_is_scored_by_a_loss_as_well(regress: Any) -> None:
    # 200/256 and 50/256 become 0.75 and 0.1875 with 8 bits: 0.0807. No narrower width has room for the exponent.
    outcome = quantize(regress("minifloat"))
    assert bits(outcome) == [8]
    assert outcome.search.groups[0].trials[-1].score == pytest.approx(0.0807, abs=1e-4)


def test_the_goal_can_be_named(regress: Any) -> None:
    # As if more were better: 1 bit leaves zeros, whose loss of 0.25 beats the baseline.
    outcome = quantize(regress(score_goal=Goal.MAX))
    assert bits(outcome) == [1, 1, 1]
    assert outcome.margin.goal is Goal.MAX


def test_legacy_takes_more_of_a_loss_for_better_as_the_original_does(regress: Any) -> None:
    outcome = quantize(regress(legacy=True, score=None))
    assert (outcome.score_blob, outcome.margin.goal) == ("l2", Goal.MAX)
    assert bits(outcome) == [1, 1, 1]


def test_a_net_without_accuracy_is_scored_by_its_loss(regress: Any) -> None:
    outcome = quantize(regress(score=None))
    assert (outcome.score_blob, outcome.margin.goal) == ("l2", Goal.MIN)
    assert bits(outcome) == [8, 8, 4]


def test_a_loss_of_zero_allows_nothing_and_that_is_said(regress: Any, caplog: pytest.LogCaptureFixture) -> None:
    # All pixels are 0, and so are the labels of a net whose bottom is compared with itself.
    text = REGRESSION.replace('bottom: "fc" bottom: "label"', 'bottom: "fc" bottom: "fc"')
    job = regress(text=text)
    with caplog.at_level("WARNING", "ristretto"):
        outcome = quantize(job)
    assert outcome.baseline == 0
    assert "--score" in caplog.text and "The float net's loss is 0" in caplog.text
    text = "\n".join([*outcome.summary_lines(), *outcome.notes()])
    assert "inf" not in text and "nan" not in text


def test_a_loss_of_zero_may_rise_by_an_absolute_margin(
    workshop: Any, regress: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # The float net copies its input, with which it is compared.
    regress()
    text = REGRESSION.replace("num_output: 1 bias_term: false", "num_output: 2 bias_term: false")
    workshop.net(text.replace('bottom: "fc" bottom: "label"', 'bottom: "fc" bottom: "data"'))
    workshop.weights(IDENTITY)
    flags = ["quantize", "--model=net.prototxt", "--weights=net.caffemodel", "--trimming_mode=dynamic_fixed_point"]
    assert run([*flags, "--iterations=2", "--bw=layer=16", "--error_margin_absolute=0.01", "--json=found.json"]) == 0
    reported = capsys.readouterr()
    found = json.loads(Path("found.json").read_text())
    assert found["baseline"]["score"] == 0
    assert (found["error_margin"], found["error_margin_unit"]) == (0.01, "the score's own unit")
    assert found["combined"]["passed"] and 0 < found["combined"]["score"] == found["combined"]["worse_by"] <= 0.01
    assert "The error margin is 0.01, in the unit of the score." in reported.err
    assert "is relative to it" not in reported.err
    score = f"{found['combined']['score']:g}"
    verdict = f"l2 is {score} above the baseline; the margin is 0.01 in the score's unit."
    assert f"The error margin is kept: {verdict}" in reported.out


def test_the_summary_names_the_loss_and_which_way_is_better(regress: Any) -> None:
    job = regress()
    outcome = quantize(job)
    lines = outcome.summary_lines()
    assert lines[4:6] == ["Baseline 32bit float: 0.0800934", "Dynamic fixed point CONV"]
    assert lines[-2].startswith("Score: 0.0812")
    assert outcome.notes()[0] == "Scored by l2: lower is better."


def test_the_summary_tells_by_how_much_a_loss_misses_the_margin(regress: Any) -> None:
    # Such weights are 1/2 at most, in both layers, where 1 is needed.
    job = regress("integer_power_of_2_weights")
    outcome = quantize(job)
    score = outcome.search.groups[0].trials[0].score
    above = (score / outcome.baseline - 1) * 100
    assert above > 2
    assert outcome.notes()[1] == (
        f"The error margin is missed: l2 is {above:.1f} % above the baseline; the margin is 2 %."
    )


def test_json_has_the_goal(regress: Any) -> None:
    job = regress("minifloat")
    data = quantize(job).as_json()
    assert (data["score"], data["score_goal"]) == ("l2", "min")


# --- the flag


FLAGS = ["--model=net.prototxt", "--weights=net.caffemodel", "--trimming_mode=minifloat", "--iterations=2"]


def test_the_flag_takes_max_and_min(regress: Any, capsys: pytest.CaptureFixture[str]) -> None:
    regress()
    for goal in ("max", "min"):
        assert run(["quantize", *FLAGS, "--score=l2", f"--score_goal={goal}", "--json=out.json"]) == 0
        assert json.loads(Path("out.json").read_text())["score_goal"] == goal


def test_another_goal_is_refused(regress: Any, capsys: pytest.CaptureFixture[str]) -> None:
    regress()
    assert run(["quantize", *FLAGS, "--score_goal=best"]) == 2
    assert "'best' is not one of 'max', 'min'" in capsys.readouterr().err
