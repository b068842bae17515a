"""Crop."""

import numpy as np
import pytest

PLANE = np.arange(12).reshape(1, 1, 3, 4)


def test_axes_from_2_on_are_cropped_to_the_second_bottom(bench):
    (top,) = bench.run("Crop", "", [PLANE, np.zeros((5, 5, 2, 2))])
    assert top.tolist() == [[[[0, 1], [4, 5]]]]


def test_one_offset_holds_for_all_cropped_axes(bench):
    (top,) = bench.run("Crop", "crop_param { offset: 1 }", [PLANE, np.zeros((1, 1, 2, 2))])
    assert top.tolist() == [[[[5, 6], [9, 10]]]]


def test_each_axis_may_have_its_offset(bench):
    (top,) = bench.run("Crop", "crop_param { offset: 0 offset: 2 }", [PLANE, np.zeros((1, 1, 2, 2))])
    assert top.tolist() == [[[[2, 3], [6, 7]]]]


@pytest.mark.parametrize("axis", [3, -1])
def test_axes_in_front_are_left_unchanged(bench, axis):
    (top,) = bench.run("Crop", f"crop_param {{ axis: {axis} offset: 3 }}", [PLANE, np.zeros((1, 1, 1, 1))])
    assert top.tolist() == [[[[3], [7], [11]]]]


@pytest.mark.parametrize("settings", ["offset: 2", "offset: 0 offset: 3", "offset: 4294967295"])
def test_a_crop_beyond_the_bottom_is_refused(bench, settings):
    message = bench.refusal("Crop", f"crop_param {{ {settings} }}", [(1, 1, 3, 4), (1, 1, 2, 2)])
    assert "out of bounds" in message


def test_a_second_bottom_that_is_larger_is_refused(bench):
    assert "out of bounds" in bench.refusal("Crop", "", [(1, 1, 3, 4), (1, 1, 3, 5)])


def test_a_wrong_number_of_offsets_is_refused(bench):
    message = bench.refusal("Crop", "crop_param { offset: 0 offset: 0 offset: 0 }", [(1, 1, 3, 4), (1, 1, 2, 2)])
    assert "3 offset settings for 2 axes" in message


def test_a_second_bottom_with_fewer_axes_is_refused(bench):
    assert "fewer axes" in bench.refusal("Crop", "", [(1, 1, 3, 4), (1, 1, 3)])


def test_an_axis_that_is_not_there_is_refused(bench):
    assert "out of range" in bench.refusal("Crop", "crop_param { axis: 4 }", [(1, 1, 3, 4), (1, 1, 2, 2)])
