"""Bias."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS

X = [[[1, 2], [3, 4], [5, 6]]]  # shape (1, 3, 2)


def test_it_adds_to_each_channel(bench):
    (top,) = bench.run("Bias", "", [X], params=[[10, 20, 30]])
    assert top.tolist() == [[[11, 12], [23, 24], [35, 36]]]


@pytest.mark.parametrize("axis", [2, -1])
def test_it_adds_along_another_axis(bench, axis):
    (top,) = bench.run("Bias", f"bias_param {{ axis: {axis} }}", [X], params=[[10, 20]])
    assert top.tolist() == [[[11, 22], [13, 24], [15, 26]]]


def test_num_axes_0_is_one_number_for_all(bench):
    (top,) = bench.run("Bias", "bias_param { num_axes: 0 }", [X], params=[10])
    assert top.tolist() == [[[11, 12], [13, 14], [15, 16]]]


def test_a_second_bottom_is_the_bias(bench):
    (top,) = bench.run("Bias", "bias_param { axis: 0 }", [[[1, 2], [3, 4]], [10, 20]])
    assert top.tolist() == [[11, 12], [23, 24]]
    assert bench.params("Bias", "", [(2, 3), (3,)]) == ()


def test_a_second_bottom_without_axes_fits_whatever_axis_says(bench):
    (top,) = bench.run("Bias", "bias_param { axis: 9 }", [[1, 2], 10])
    assert top.tolist() == [11, 12]


@pytest.mark.parametrize(
    ("settings", "shape"), [("", (3,)), ("num_axes: 0", ()), ("num_axes: -1", (3, 4)), ("axis: -1", (4,))]
)
def test_the_parameter_has_the_extents_of_its_axes_and_starts_at_zero(bench, settings, shape):
    (param,) = bench.params("Bias", f"bias_param {{ {settings} }}", [(2, 3, 4)])
    assert (param.shape, param.filler.type, param.filler.value) == (shape, "constant", 0)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("axis: 3", "out of range"),
        ("num_axes: -2", "num_axes is -2"),
        ("axis: 2 num_axes: 2", "extend past the end"),
    ],
)
def test_axes_that_are_not_there_are_refused(bench, settings, what):
    assert what in bench.refusal("Bias", f"bias_param {{ {settings} }}", [(1, 3, 2)])


@pytest.mark.parametrize("second", [(2,), (1,), (3, 1)])
def test_a_second_bottom_of_other_extents_is_refused(bench, second):
    assert "does not fit" in bench.refusal("Bias", "", [(1, 3, 2), second])


def test_it_may_run_in_place():
    assert LAYERS.get("Bias").in_place
