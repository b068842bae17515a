"""SigmoidCrossEntropyLoss."""

import math

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS

LOG2 = math.log(2)
EVEN = np.zeros((2, 3))  # a score of 0 costs log 2, whatever its target


def loss(bench, settings, scores, targets):
    (top,) = bench.run("SigmoidCrossEntropyLoss", settings, [scores, targets])
    assert top.shape == ()
    return float(top)


def test_it_is_the_cross_entropy_of_each_value(bench):
    scores = [[math.log(3), -math.log(3)]]  # probabilities 3/4 and 1/4
    expected = -math.log(3 / 4) - (0.5 * math.log(1 / 4) + 0.5 * math.log(3 / 4))
    assert loss(bench, "", scores, [[1, 0.5]]) == pytest.approx(expected)


def test_large_scores_neither_overflow_nor_vanish(bench):
    assert loss(bench, "", [[1000, -1000, 1000, -1000]], [[1, 0, 0, 1]]) == 2000


def test_a_target_beyond_one_can_make_it_negative(bench):
    assert loss(bench, "", [[10]], [[2]]) == pytest.approx(-10 + math.log1p(math.exp(-10)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", 3 * LOG2),
        ("normalization: VALID", LOG2),
        ("normalization: FULL", LOG2),
        ("normalization: BATCH_SIZE", 3 * LOG2),
        ("normalization: NONE", 6 * LOG2),
        ("normalize: true", LOG2),
        ("normalize: false", 3 * LOG2),
        ("normalize: true normalization: NONE", 6 * LOG2),
    ],
)
def test_the_sum_is_divided_as_the_settings_say_and_by_the_batch_else(bench, settings, expected):
    assert loss(bench, f"loss_param {{ {settings} }}", EVEN, EVEN) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", 2 * LOG2),
        ("normalization: VALID", LOG2),
        ("normalization: FULL", LOG2 * 4 / 6),
        ("normalization: NONE", 4 * LOG2),
    ],
)
def test_an_ignored_target_costs_nothing_and_only_valid_leaves_it_out_of_the_count(bench, settings, expected):
    targets = [[1, -1, 0], [0, 1, -1]]
    result = loss(bench, f"loss_param {{ ignore_label: -1 {settings} }}", EVEN, targets)
    assert result == pytest.approx(expected)


def test_the_ignored_target_is_looked_for_among_targets_cut_off_to_whole_numbers(bench):
    settings = "loss_param { ignore_label: 0 normalization: NONE }"
    assert loss(bench, settings, EVEN, [[0, 0.99, -0.99], [1, 1.5, -1]]) == pytest.approx(3 * LOG2)


def test_the_ignored_target_stays_out_even_where_its_score_is_no_number(bench):
    settings = "loss_param { ignore_label: -1 normalization: VALID }"
    assert loss(bench, settings, [[math.nan, 0]], [[-1, 1]]) == pytest.approx(LOG2)


def test_without_a_target_that_counts_the_loss_is_zero(bench):
    settings = "loss_param { ignore_label: 1 normalization: VALID }"
    assert loss(bench, settings, EVEN, np.ones((2, 3))) == 0


def test_targets_may_have_another_shape_with_as_many_values(bench):
    assert loss(bench, "", np.zeros((2, 3, 1, 2)), np.zeros((2, 6))) == pytest.approx(6 * LOG2)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(2, 3), (3, 2)], "differ on axis 0"),
        ([(2, 3), (2,)], "scores of shape 2x3 and targets of shape 2 have different numbers"),
        ([(), ()], "differ on axis 0"),
    ],
)
def test_what_does_not_fit_is_refused(bench, shapes, said):
    assert said in bench.refusal("SigmoidCrossEntropyLoss", "", shapes)


def test_it_is_a_loss():
    assert LAYERS.get("SigmoidCrossEntropyLoss").is_loss
