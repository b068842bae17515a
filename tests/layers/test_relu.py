"""ReLU."""

from ristretto_cli.layers.layer_type import LAYERS


def test_negative_values_become_zero(bench):
    (top,) = bench.run("ReLU", "", [[[-2, 0, 3]]])
    assert top.tolist() == [[0, 0, 3]]


def test_negative_values_are_scaled_by_the_slope(bench):
    (top,) = bench.run("ReLU", "relu_param { negative_slope: 0.25 }", [[[-2, 0, 3]]])
    assert top.tolist() == [[-0.5, 0, 3]]


def test_a_slope_may_be_negative(bench):
    (top,) = bench.run("ReLU", "relu_param { negative_slope: -1 }", [[[-2, 0, 3]]])
    assert top.tolist() == [[2, 0, 3]]


def test_it_may_run_in_place():
    assert LAYERS.get("ReLU").in_place
