"""Split."""

from ristretto_cli.layers.layer_type import LAYERS


def test_each_top_is_the_bottom(bench):
    tops = bench.run("Split", "", [[1, 2]], tops=3)
    assert [top.tolist() for top in tops] == [[1, 2], [1, 2], [1, 2]]


def test_the_tops_are_the_bottoms_memory(bench):
    assert LAYERS.get("Split").shares_memory(bench.layer("Split", "", tops=2))


def test_it_may_not_run_in_place():
    assert not LAYERS.get("Split").in_place
