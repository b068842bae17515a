"""MultinomialLogisticLoss."""

import math

import pytest

from ristretto_cli.layers.layer_type import LAYERS


def loss(bench, probabilities, labels):
    (top,) = bench.run("MultinomialLogisticLoss", "", [probabilities, labels])
    assert top.shape == ()
    return float(top)


def test_it_is_the_mean_of_minus_the_logarithm_of_the_labels_probability(bench):
    expected = -(math.log(0.5) + math.log(0.25)) / 2
    assert loss(bench, [[0.5, 0.5, 0], [0.5, 0.25, 0.25]], [1, 2]) == pytest.approx(expected)


def test_what_is_given_need_not_sum_to_one(bench):
    assert loss(bench, [[2, 4]], [1]) == pytest.approx(-math.log(4))


@pytest.mark.parametrize("probability", [0, 1e-30, -1])
def test_a_probability_is_taken_for_1e_20_at_least(bench, probability):
    assert loss(bench, [[1, probability]], [1]) == pytest.approx(20 * math.log(10))


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_without_a_class_costs_the_most(bench, label):
    assert loss(bench, [[0.5, 0.5]], [label]) == pytest.approx(20 * math.log(10))


def test_labels_may_have_trailing_axes_and_are_cut_off(bench):
    assert loss(bench, [[0.5, 0.25]], [[[[1.9]]]]) == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(2, 3), (3,)], "differ on axis 0"),
        ([(2, 3), (2, 2)], "4 labels (shape 2x2) for a batch of 2"),
        ([(1, 1, 1, 1, 2), (1,)], "takes at most 4"),
        ([(1, 2), (1, 1, 1, 1, 1)], "takes at most 4"),
    ],
)
def test_what_does_not_fit_is_refused(bench, shapes, said):
    assert said in bench.refusal("MultinomialLogisticLoss", "", shapes)


def test_it_is_a_loss():
    assert LAYERS.get("MultinomialLogisticLoss").is_loss
