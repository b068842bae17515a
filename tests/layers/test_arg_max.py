"""ArgMax."""

import numpy as np
import pytest


def top_of(bench, settings, x):
    (top,) = bench.run("ArgMax", f"argmax_param {{ {settings} }}", [x])
    return top


def test_the_index_of_the_largest_has_three_axes(bench):
    top = top_of(bench, "", [[1, 9, 3], [7, 2, 4]])
    assert top.tolist() == [[[1]], [[0]]]


def test_of_equals_the_larger_index_comes_first(bench):
    assert top_of(bench, "top_k: 3", [[5, 1, 5, 0]]).tolist() == [[[2, 0, 1]]]


def test_each_item_is_taken_flat_and_keeps_its_number_of_axes(bench):
    x = np.array([3, 0, 1, 2, 7, 5, 4, 6]).reshape(1, 2, 2, 2)
    assert top_of(bench, "top_k: 2", x).tolist() == [[[[4], [7]]]]


def test_the_values_stand_after_the_indices(bench):
    top = top_of(bench, "top_k: 2 out_max_val: true", [[1, 9, 3], [7, 2, 4]])
    assert top.tolist() == [[[1, 2], [9, 3]], [[0, 2], [7, 4]]]


@pytest.mark.parametrize("axis", [0, -2])
def test_with_an_axis_the_indices_stand_on_it(bench, axis):
    assert top_of(bench, f"axis: {axis}", [[1, 9, 3], [7, 2, 4]]).tolist() == [[1, 0, 1]]


def test_with_an_axis_the_values_take_the_place_of_the_indices(bench):
    top = top_of(bench, "axis: 1 top_k: 2 out_max_val: true", [[1, 9, 3], [7, 2, 4]])
    assert top.tolist() == [[9, 3], [7, 4]]


def test_a_vector_has_one_value_for_each_item(bench):
    assert top_of(bench, "out_max_val: true", [4, 5]).tolist() == [[[0], [4]], [[0], [5]]]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("top_k: 0", "top_k is 0"),
        ("top_k: 13", "there are 12 values"),
        ("top_k: 4 axis: 1", "there are 3 values"),
        ("axis: 3", "out of range"),
        ("axis: -4", "out of range"),
    ],
)
def test_settings_that_cannot_be_are_refused(bench, settings, what):
    assert what in bench.refusal("ArgMax", f"argmax_param {{ {settings} }}", [(2, 3, 4)])


def test_a_bottom_without_axes_is_refused(bench):
    assert "without axes" in bench.refusal("ArgMax", "", [()])
