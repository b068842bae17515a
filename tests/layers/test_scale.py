"""Scale."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS

X = [[[1, 2], [3, 4], [5, 6]]]  # shape (1, 3, 2)


def test_it_scales_each_channel(bench):
    (top,) = bench.run("Scale", "", [X], params=[[1, 10, 100]])
    assert top.tolist() == [[[1, 2], [30, 40], [500, 600]]]


def test_a_bias_is_added_last(bench):
    (top,) = bench.run("Scale", "scale_param { bias_term: true }", [X], params=[[1, 10, 100], [7, 8, 9]])
    assert top.tolist() == [[[8, 9], [38, 48], [509, 609]]]


@pytest.mark.parametrize("axis", [2, -1])
def test_it_scales_along_another_axis(bench, axis):
    (top,) = bench.run("Scale", f"scale_param {{ axis: {axis} }}", [X], params=[[1, 10]])
    assert top.tolist() == [[[1, 20], [3, 40], [5, 60]]]


@pytest.mark.parametrize("settings", ["axis: 1 num_axes: 2", "axis: 1 num_axes: -1", "axis: -2 num_axes: 2"])
def test_it_scales_several_axes_at_once(bench, settings):
    (top,) = bench.run("Scale", f"scale_param {{ {settings} }}", [X], params=[[[1, 2], [1, 0], [1, -1]]])
    assert top.tolist() == [[[1, 4], [3, 0], [5, -6]]]


def test_num_axes_0_is_one_number_for_all(bench):
    (top,) = bench.run("Scale", "scale_param { num_axes: 0 bias_term: true }", [X], params=[2, 1])
    assert top.tolist() == [[[3, 5], [7, 9], [11, 13]]]


@pytest.mark.parametrize(
    ("settings", "shapes"),
    [
        ("", [(3,)]),
        ("num_axes: 0", [()]),
        ("num_axes: -1", [(3, 4, 5)]),
        ("axis: 0 num_axes: 2", [(2, 3)]),
        ("axis: -1", [(5,)]),
        ("axis: 2 num_axes: 2 bias_term: true", [(4, 5), (4, 5)]),
    ],
)
def test_parameters_have_the_extents_of_the_axes_they_scale(bench, settings, shapes):
    params = bench.params("Scale", f"scale_param {{ {settings} }}", [(2, 3, 4, 5)])
    assert [param.shape for param in params] == shapes


def test_the_scale_starts_at_1_and_the_bias_at_0(bench):
    params = bench.params("Scale", "scale_param { bias_term: true }", [(2, 3)])
    assert [(param.filler.type, param.filler.value) for param in params] == [("constant", 1), ("constant", 0)]


def test_fillers_of_their_own_are_kept(bench):
    settings = "scale_param { bias_term: true filler { value: 5 } bias_filler { value: 6 } }"
    assert [param.filler.value for param in bench.params("Scale", settings, [(2, 3)])] == [5, 6]


def test_a_second_bottom_is_the_scale(bench):
    (top,) = bench.run("Scale", "scale_param { axis: 0 }", [[[1, 2], [3, 4]], [10, 100]])
    assert top.tolist() == [[10, 20], [300, 400]]


def test_a_second_bottom_may_cover_several_axes(bench):
    (top,) = bench.run("Scale", "", [X, [[1, 2], [1, 0], [1, -1]]])
    assert top.tolist() == [[[1, 4], [3, 0], [5, -6]]]


def test_a_second_bottom_without_axes_fits_whatever_axis_says(bench):
    (top,) = bench.run("Scale", "scale_param { axis: 9 }", [X, 2])
    assert top.tolist() == [[[2, 4], [6, 8], [10, 12]]]


def test_with_a_second_bottom_only_the_bias_is_a_parameter(bench):
    (top,) = bench.run("Scale", "scale_param { bias_term: true }", [X, [1, 10, 100]], params=[[7, 8, 9]])
    assert top.tolist() == [[[8, 9], [38, 48], [509, 609]]]


def test_that_bias_has_the_second_bottoms_shape(bench):
    (param,) = bench.params("Scale", "scale_param { bias_term: true }", [(2, 3, 4), (3, 4)])
    assert param.shape == (3, 4)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("axis: 3", "out of range"),
        ("axis: -4", "out of range"),
        ("num_axes: -2", "num_axes is -2"),
        ("axis: 2 num_axes: 2", "extend past the end"),
    ],
)
def test_axes_that_are_not_there_are_refused(bench, settings, what):
    assert what in bench.refusal("Scale", f"scale_param {{ {settings} }}", [(1, 3, 2)])


@pytest.mark.parametrize("second", [(2,), (3, 1), (1,), (3, 2, 1), (1, 3, 2)])
def test_a_second_bottom_of_other_extents_is_refused(bench, second):
    assert "does not fit" in bench.refusal("Scale", "", [(1, 3, 2), second])


def test_it_may_run_in_place():
    assert LAYERS.get("Scale").in_place
