"""Early verdicts: never another one than that of all batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ristretto_cli.errors import RistrettoError
from ristretto_cli.quantize.config import QuantizeConfig
from ristretto_cli.quantize.early_stopping import EarlyStopping
from ristretto_cli.quantize.margin import Goal, Margin
from ristretto_cli.quantize.pipeline import quantize


def test_a_score_that_can_no_longer_fall_too_low_passes() -> None:
    # 0.5 is enough: with 1 + 1 of 4 batches it is reached, whatever comes.
    verdict = EarlyStopping("accuracy", Margin(0.52, 2.0), 4)
    assert not verdict.should_stop(1.0, 1)
    assert verdict.passed is None
    assert not verdict.should_stop(1.9, 2)
    assert verdict.should_stop(2.1, 3)
    assert verdict.passed is True


def test_a_score_that_can_no_longer_rise_high_enough_fails() -> None:
    verdict = EarlyStopping("accuracy", Margin(0.52, 2.0), 4)
    assert not verdict.should_stop(0.0, 1)  # three batches of 1 would do
    assert not verdict.should_stop(0.0, 2)  # so would two
    assert verdict.should_stop(0.0, 3)
    assert verdict.passed is False


def test_rounding_can_reach_a_margin_that_exact_numbers_miss() -> None:
    # In float32 0.08 + 1 over 2 is 0.54 and a bit.
    reached = float((np.float32(0.08) + np.float32(1)) / np.float32(2))
    assert reached > (float(np.float32(0.08)) + 1) / 2
    verdict = EarlyStopping("accuracy", Margin(reached, 0.0, exact=True), 2, single_precision=True)
    assert not verdict.should_stop(float(np.float32(0.08)), 1)


def test_where_less_is_better_a_low_score_passes() -> None:
    verdict = EarlyStopping("accuracy", Margin(0.8, 0.0, goal=Goal.MIN), 4)
    assert verdict.should_stop(0.5, 2)  # 2.5 of 4 at most
    assert verdict.passed is True


SHARES = st.lists(st.sampled_from([k / 50 for k in range(51)]), min_size=1, max_size=60)


@given(
    shares=SHARES,
    baseline=st.sampled_from([k / 50 for k in range(51)]) | st.floats(0, 1, width=32),
    percent=st.sampled_from([0.0, 1.0, 2.0, 10.0]),
    exact=st.booleans(),
    goal=st.sampled_from(Goal),
)
def test_the_early_decision_is_that_of_all_batches(
    shares: list[float], baseline: float, percent: float, exact: bool, goal: Goal
) -> None:
    margin = Margin(baseline, percent, exact=exact, goal=goal)
    dtype: Any = np.float32 if exact else np.float64
    verdict = EarlyStopping("accuracy", margin, len(shares), single_precision=exact)
    total, early = np.zeros(1, dtype), None
    for i, share in enumerate(shares):
        total += np.float32(share)
        if early is None and verdict.should_stop(float(total[0]), i + 1):
            early = verdict.passed
    full = margin.allows(float((total / dtype(len(shares)))[0]))
    assert early is None or early == full


@given(shares=SHARES)
def test_far_from_the_margin_less_than_all_batches_decide(shares: list[float]) -> None:
    verdict = EarlyStopping("accuracy", Margin(2.0, 0.0), len(shares))
    assert verdict.should_stop(0.0, 1)
    assert verdict.passed is False


# --- in a job


def test_a_job_stops_early_marks_it_and_finds_the_same(two_classes: Any) -> None:
    files = two_classes()
    # Margin 2 % below 0.8 in 10 batches of 5: what fails has a batch of 0 first.
    whole, early = (files.job(iterations=10, early_stop=early) for early in (False, True))
    found, found_early = quantize(whole), quantize(early)
    assert found_early.search.widths == found.search.widths
    assert found_early.net_file.message == found.net_file.message
    lines = found_early.summary_lines()
    assert "1bit: \t0*" in lines
    assert (
        found_early.notes()[0] == "* stopped early: the remaining batches could not change whether the candidate passes"
    )
    assert "*" not in "".join([*found.summary_lines(), *found.notes()])
    conv, fc, _ = found_early.as_json()["groups"]
    # 0.8 in each batch: 8 of them sum up to 6.4, 7.8 are needed; of zeros, the third leaves 7 at most.
    assert [(t["bits"], t["passed"], t["iterations"]) for t in conv["trials"]] == [
        (16, True, 10),
        (8, True, 10),
        (4, True, 10),
        (2, True, 10),
        (1, False, 3),
    ]
    assert conv == {**fc, "name": "conv_params", "part": "CONV weights"}
    combined = found_early.as_json()["combined"]
    assert combined == found.as_json()["combined"]
    assert combined["iterations"] == 10


def test_a_wide_margin_is_met_early(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(iterations=10, early_stop=True, error_margin_percent=50.0))
    # 0.3 is needed: the fourth batch brings the sum to 3.2.
    first = outcome.search.groups[0].trials[0]
    assert (first.passed, first.stopped, first.scores.iterations) == (True, True, 4)
    assert outcome.search.combined is not None
    assert outcome.search.combined.scores.iterations == 10


@pytest.mark.parametrize("mode", ["minifloat", "integer_power_of_2_weights"])
def test_with_one_group_all_nets_are_scored_in_full(two_classes: Any, mode: str) -> None:
    outcome = quantize(two_classes().job(mode, iterations=10, early_stop=True, error_margin_percent=50.0))
    assert [t.scores.iterations for t in outcome.search.groups[0].trials] == [10] * len(outcome.search.groups[0].trials)


def test_a_score_without_bounds_is_refused(two_classes: Any) -> None:
    with pytest.raises(RistrettoError) as refused:
        quantize(two_classes().job(early_stop=True, score="loss"))
    assert str(refused.value) == (
        'net.prototxt: --early_stop needs a score with known bounds, but "loss" is not the top of an Accuracy layer. '
        "Omit --early_stop."
    )


def test_average_precision_has_no_early_stopping(bright_halves: Any) -> None:
    job = QuantizeConfig("net.prototxt", "net.caffemodel", "quantized.prototxt", "dynamic_fixed_point", early_stop=True)
    with pytest.raises(RistrettoError, match='"detection_eval" is not the top of an Accuracy'):
        quantize(job)
