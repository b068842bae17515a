"""Accuracy."""

import math

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS

SCORES = [[5, 1, 3], [1, 5, 3], [1, 3, 5], [5, 3, 1]]


def accuracy(bench, settings, scores, labels):
    (top,) = bench.run("Accuracy", f"accuracy_param {{ {settings} }}", [scores, labels])
    assert top.shape == ()
    return float(top)


@pytest.mark.parametrize(("top_k", "expected"), [(1, 0.5), (2, 0.75), (3, 1)])
def test_a_prediction_is_right_if_its_label_is_among_the_best(bench, top_k, expected):
    assert accuracy(bench, f"top_k: {top_k}", SCORES, [0, 1, 1, 2]) == expected


def test_ties_count_against(bench):
    assert accuracy(bench, "", [[1, 1, 0], [0, 2, 1]], [0, 1]) == 0.5


def test_ties_count_against_with_top_2_too(bench):
    assert accuracy(bench, "top_k: 2", [[1, 1, 1], [1, 1, 0]], [0, 0]) == 0.5


def test_negative_scores_are_scores_like_others(bench):
    assert accuracy(bench, "", [[-3, -1, -2], [-1, -2, -3]], [1, 1]) == 0.5


def test_an_ignored_label_is_left_out(bench):
    assert accuracy(bench, "ignore_label: 2", SCORES, [0, 1, 1, 2]) == pytest.approx(2 / 3)


def test_without_a_label_that_counts_it_is_zero(bench):
    assert accuracy(bench, "ignore_label: -1", SCORES, [-1, -1, -1, -1]) == 0


@pytest.mark.parametrize("axis", [2, -1])
def test_the_classes_may_stand_on_another_axis(bench, axis):
    scores = np.array(SCORES).reshape(2, 2, 3)
    assert accuracy(bench, f"axis: {axis}", scores, [[0, 1], [1, 2]]) == 0.5


def test_each_place_of_a_plane_is_a_prediction(bench):
    scores = np.array([[[1, 2, 3]], [[3, 2.5, 1]]]).reshape(1, 2, 1, 3)
    assert accuracy(bench, "", scores, [[1, 1, 1]]) == pytest.approx(2 / 3)


def test_a_second_top_has_the_accuracy_of_each_class(bench):
    total, per_class = bench.run("Accuracy", "", [SCORES, [0, 1, 1, 0]], tops=2)
    assert total.tolist() == 0.75
    assert per_class.tolist() == [1, 0.5, 0]


def test_an_ignored_label_is_left_out_of_its_class(bench):
    settings = "accuracy_param { ignore_label: 1 }"
    _, per_class = bench.run("Accuracy", settings, [SCORES, [0, 1, 1, 2]], tops=2)
    assert per_class.tolist() == [1, 0, 0]


def test_labels_are_cut_off_towards_zero(bench):
    assert accuracy(bench, "", [[5, 1], [5, 1], [1, 5]], [0.9, -0.9, 1.9]) == 1


@pytest.mark.parametrize("label", [3, -1, 1e9, math.nan])
def test_a_label_without_a_class_is_a_wrong_prediction(bench, label):
    assert accuracy(bench, "top_k: 3", [[-1, -2, -3], [1, 2, 3]], [label, 0]) == 0.5


def test_nan_at_the_label_counts_as_right_as_in_caffe(bench):
    assert accuracy(bench, "", [[math.nan, 1], [math.nan, 1]], [0, 1]) == 1


def test_more_than_all_classes_are_refused(bench):
    message = bench.refusal("Accuracy", "accuracy_param { top_k: 4 }", [(2, 3), (2,)])
    assert "top_k is 4, but there are 3 classes" in message


def test_a_label_for_each_prediction_is_needed(bench):
    assert "3 labels" in bench.refusal("Accuracy", "", [(2, 3), (3,)])


def test_an_axis_that_is_not_there_is_refused(bench):
    assert "out of range" in bench.refusal("Accuracy", "accuracy_param { axis: 2 }", [(2, 3), (2,)])


def test_it_is_no_loss():
    assert not LAYERS.get("Accuracy").is_loss
