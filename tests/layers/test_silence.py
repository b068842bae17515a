"""Silence."""

from ristretto_cli.layers.layer_type import LAYERS


def test_it_has_no_tops(bench):
    assert bench.run("Silence", "", [[1, 2], [3]], tops=0) == []
    assert LAYERS.get("Silence").tops == (0, 0)


def test_it_takes_any_number_of_bottoms():
    assert LAYERS.get("Silence").bottoms == (1, None)
