"""HardSwish."""

from ristretto_cli.layers.layer_type import LAYERS


def test_it_is_0_below_minus_3_and_the_value_itself_above_3(bench):
    (top,) = bench.run("HardSwish", "", [[-100, -3, -1.5, 0, 1.5, 3, 100]])
    assert top.tolist() == [0, 0, -0.375, 0, 1.125, 3, 100]


def test_it_may_run_in_place():
    assert LAYERS.get("HardSwish").in_place
