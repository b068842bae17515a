"""SoftmaxWithLoss."""

import math

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS

LOG2, LOG4 = math.log(2), math.log(4)
EVEN = [[0, 0], [0, 0], [0, 0], [0, 0]]  # each label costs log 2
PLANES = np.zeros((2, 4, 1, 3))  # each of 2 x 3 labels costs log 4


def loss(bench, settings, scores, labels):
    (top,) = bench.run("SoftmaxWithLoss", settings, [scores, labels])
    assert top.shape == ()
    return float(top)


def test_it_is_minus_the_logarithm_of_the_labels_probability(bench):
    scores = np.log([[1, 2, 5], [5, 3, 2]])
    expected = -(math.log(5 / 8) + math.log(3 / 10)) / 2
    assert loss(bench, "", scores, [2, 1]) == pytest.approx(expected)


def test_a_hopeless_label_costs_no_more_than_the_smallest_float(bench):
    assert loss(bench, "", [[0, 1000]], [0]) == pytest.approx(87.33655)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", LOG4),
        ("normalization: VALID", LOG4),
        ("normalization: FULL", LOG4),
        ("normalization: BATCH_SIZE", 3 * LOG4),
        ("normalization: NONE", 6 * LOG4),
        ("normalize: true", LOG4),
        ("normalize: false", 3 * LOG4),
        ("normalize: false normalization: NONE", 6 * LOG4),
    ],
)
def test_the_sum_is_divided_as_the_settings_say(bench, settings, expected):
    assert loss(bench, f"loss_param {{ {settings} }}", PLANES, np.zeros((2, 3))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", LOG2),
        ("normalization: FULL", LOG2 * 3 / 4),
        ("normalization: BATCH_SIZE", LOG2 * 3 / 4),
        ("normalization: NONE", LOG2 * 3),
    ],
)
def test_an_ignored_label_costs_nothing_and_only_valid_leaves_it_out_of_the_count(bench, settings, expected):
    result = loss(bench, f"loss_param {{ ignore_label: 255 {settings} }}", EVEN, [0, 255, 1, 0])
    assert result == pytest.approx(expected)


def test_the_ignored_label_may_be_one_of_the_classes(bench):
    assert loss(bench, "loss_param { ignore_label: 0 normalization: NONE }", EVEN, [0, 0, 1, 0]) == pytest.approx(LOG2)


def test_without_a_label_that_counts_the_loss_is_zero(bench):
    assert loss(bench, "loss_param { ignore_label: -1 }", EVEN, [-1, -1, -1, -1]) == 0


def test_the_classes_may_stand_on_another_axis(bench):
    scores = np.log([[[1, 3], [1, 1]]])
    expected = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    result = loss(bench, "softmax_param { axis: -1 }", scores, [[1, 0]])
    assert result == pytest.approx(expected)


def test_labels_are_cut_off_towards_zero(bench):
    scores = np.log([[1, 3], [1, 3], [1, 3]])
    expected = -(math.log(3 / 4) + 2 * math.log(1 / 4)) / 3
    assert loss(bench, "", scores, [1.9, 0.9, -0.9]) == pytest.approx(expected)


@pytest.mark.parametrize("label", [2, -1, 1e9, math.nan])
def test_a_label_without_a_class_costs_the_most(bench, label):
    assert loss(bench, "", [[0, 0]], [label]) == pytest.approx(87.33655)


def test_a_label_for_each_prediction_is_needed(bench):
    message = bench.refusal("SoftmaxWithLoss", "", [(2, 3, 2, 2), (2, 3)])
    assert "6 labels" in message and "8 predictions" in message


def test_labels_of_another_batch_are_refused(bench):
    assert "differ on axis 0" in bench.refusal("SoftmaxWithLoss", "", [(2, 3, 2), (4,)])


def test_an_axis_that_is_not_there_is_refused(bench):
    assert "out of range" in bench.refusal("SoftmaxWithLoss", "softmax_param { axis: 2 }", [(2, 3), (2,)])


def test_it_is_a_loss_with_one_top():
    layer_type = LAYERS.get("SoftmaxWithLoss")
    assert (layer_type.is_loss, layer_type.bottoms, layer_type.tops) == (True, (2, 2), (1, 1))
