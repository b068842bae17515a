"""Slice."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS


def test_without_points_the_parts_are_equal(bench):
    tops = bench.run("Slice", "", [[[1, 2, 3, 4], [5, 6, 7, 8]]], tops=2)
    assert [top.tolist() for top in tops] == [[[1, 2], [5, 6]], [[3, 4], [7, 8]]]


@pytest.mark.parametrize("axis", ["", "axis: 1", "axis: -1", "slice_dim: 1"])
def test_points_are_where_the_next_part_begins(bench, axis):
    tops = bench.run("Slice", f"slice_param {{ {axis} slice_point: 1 slice_point: 3 }}", [[[1, 2, 3, 4]]], tops=3)
    assert [top.tolist() for top in tops] == [[[1]], [[2, 3]], [[4]]]


@pytest.mark.parametrize("axis", ["axis: 0", "axis: -2", "slice_dim: 0"])
def test_another_axis_can_be_cut(bench, axis):
    tops = bench.run("Slice", f"slice_param {{ {axis} }}", [[[1, 2], [3, 4]]], tops=2)
    assert [top.tolist() for top in tops] == [[[1, 2]], [[3, 4]]]


def test_one_top_is_the_bottom_in_its_own_memory(bench):
    (top,) = bench.run("Slice", "", [[[1, 2, 3]]])
    assert top.tolist() == [[1, 2, 3]]
    assert LAYERS.get("Slice").shares_memory(bench.layer("Slice", "", tops=1))


def test_several_tops_are_copies(bench):
    assert not LAYERS.get("Slice").shares_memory(bench.layer("Slice", "", tops=2))


def test_a_wrong_number_of_points_is_refused(bench):
    message = bench.refusal("Slice", "slice_param { slice_point: 1 }", [(2, 6)], tops=3)
    assert "1 slice_point settings for 3 tops" in message


@pytest.mark.parametrize("points", [(2, 2), (3, 1), (0, 2), (2, 4), (2, 5), (2, 4294967295)])
def test_points_that_leave_a_part_empty_are_refused(bench, points):
    settings = " ".join(f"slice_point: {point}" for point in points)
    assert "do not split an extent of 4" in bench.refusal("Slice", f"slice_param {{ {settings} }}", [(2, 4)], tops=3)


def test_an_extent_that_does_not_divide_is_refused(bench):
    message = bench.refusal("Slice", "", [(2, 5)], tops=2)
    assert "an extent of 5 cannot be split into 2 equal parts" in message


def test_an_axis_that_is_not_there_is_refused(bench):
    assert "out of range" in bench.refusal("Slice", "slice_param { axis: 2 }", [(2, 4)], tops=2)


def test_both_spellings_of_the_axis_are_refused(bench):
    message = bench.refusal("Slice", "slice_param { axis: 1 slice_dim: 1 }", [(2, 4)], tops=2)
    assert "axis and slice_dim are both set" in message
