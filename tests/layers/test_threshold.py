"""Threshold."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [("", [0, 0, 1, 1, 0]), ("threshold: 1", [0, 0, 0, 1, 0]), ("threshold: -3", [1, 1, 1, 1, 0])],
)
def test_it_is_1_strictly_above_the_threshold(bench, settings, expected):
    (top,) = bench.run("Threshold", f"threshold_param {{ {settings} }}", [[-2, 0, 1, 5, float("nan")]])
    assert top.tolist() == expected


@pytest.mark.parametrize(("threshold", "ignored"), [(-0.5, False), (0, True), (1, True)])
def test_from_0_on_the_negative_side_does_not_matter(bench, threshold, ignored):
    layer = bench.layer("Threshold", f"threshold_param {{ threshold: {threshold} }}")
    assert LAYERS.get("Threshold").is_constant_below_zero(layer) is ignored


def test_it_may_run_in_place():
    assert LAYERS.get("Threshold").in_place
