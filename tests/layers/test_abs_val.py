"""AbsVal."""

from ristretto_cli.layers.layer_type import LAYERS


def test_it_drops_the_sign(bench):
    (top,) = bench.run("AbsVal", "", [[-1.5, 0, 2]])
    assert top.tolist() == [1.5, 0, 2]


def test_it_does_not_run_in_place():
    assert not LAYERS.get("AbsVal").in_place
