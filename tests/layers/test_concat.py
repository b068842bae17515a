"""Concat."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize("settings", ["", "axis: 1", "axis: -1", "concat_dim: 1"])
def test_bottoms_are_joined_on_axis_1(bench, settings):
    (top,) = bench.run("Concat", f"concat_param {{ {settings} }}", [[[1, 2], [3, 4]], [[5], [6]]])
    assert top.tolist() == [[1, 2, 5], [3, 4, 6]]


@pytest.mark.parametrize("settings", ["axis: 0", "axis: -2", "concat_dim: 0"])
def test_bottoms_are_joined_on_axis_0(bench, settings):
    (top,) = bench.run("Concat", f"concat_param {{ {settings} }}", [[[1, 2]], [[3, 4], [5, 6]]])
    assert top.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_one_bottom_is_passed_on_in_its_own_memory(bench):
    (top,) = bench.run("Concat", "", [[[1, 2]]])
    assert top.tolist() == [[1, 2]]
    assert LAYERS.get("Concat").shares_memory(bench.layer("Concat", "", bottoms=1))


def test_two_bottoms_are_copied(bench):
    assert not LAYERS.get("Concat").shares_memory(bench.layer("Concat", "", bottoms=2))


@pytest.mark.parametrize("other", [(2, 5, 5), (3, 5, 4), (2, 5), (2, 5, 4, 1)])
def test_bottoms_that_differ_elsewhere_are_refused(bench, other):
    message = bench.refusal("Concat", "", [(2, 3, 4), (2, 5, 4), other])
    assert "bottom 2 has shape" in message


def test_a_bottom_that_lacks_the_axis_is_refused(bench):
    assert "bottom 1 has shape 2," in bench.refusal("Concat", "", [(2, 3), (2,)])


@pytest.mark.parametrize("settings", ["axis: 2", "axis: -3", "concat_dim: 2", "concat_dim: 4294967295"])
def test_an_axis_that_is_not_there_is_refused(bench, settings):
    message = bench.refusal("Concat", f"concat_param {{ {settings} }}", [(2, 3), (2, 3)])
    assert "out of range" in message


def test_both_spellings_of_the_axis_are_refused(bench):
    message = bench.refusal("Concat", "concat_param { axis: 1 concat_dim: 1 }", [(2, 3), (2, 3)])
    assert "axis and concat_dim are both set" in message
