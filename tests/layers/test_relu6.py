"""ReLU6."""

from ristretto_cli.layers.layer_type import LAYERS


def test_it_cuts_off_below_0_and_above_6(bench):
    (top,) = bench.run("ReLU6", "", [[-1, 0, 2.5, 6, 7]])
    assert top.tolist() == [0, 0, 2.5, 6, 6]


def test_it_may_run_in_place_and_does_not_see_what_is_negative(bench):
    relu6 = LAYERS.get("ReLU6")
    assert relu6.in_place
    assert relu6.is_constant_below_zero(bench.layer("ReLU6", ""))
