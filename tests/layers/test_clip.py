"""Clip."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1, 2, [-1, -1, 0.5, 2, 2]),
        (0, 6, [0, 0, 0.5, 2, 3]),
        (1, 1, [1, 1, 1, 1, 1]),
        (2, -1, [2, 2, 2, 2, 2]),  # max(min, ...) comes last
    ],
)
def test_values_beyond_the_bounds_become_the_bounds(bench, low, high, expected):
    (top,) = bench.run("Clip", f"clip_param {{ min: {low} max: {high} }}", [[-3, -1, 0.5, 2, 3]])
    assert top.tolist() == expected


@pytest.mark.parametrize(("low", "high", "expected"), [(-1, 2, 2), (2, -1, 2)])
def test_nan_becomes_the_larger_bound(bench, low, high, expected):
    (top,) = bench.run("Clip", f"clip_param {{ min: {low} max: {high} }}", [[float("nan")]])
    assert top.tolist() == [expected]


def test_without_bounds_it_is_refused(bench):
    assert "clip_param is missing" in bench.refusal("Clip", "", [(3,)])


def test_with_a_lower_bound_of_0_or_more_the_negative_side_does_not_matter(bench):
    def ignores(low):
        return LAYERS.get("Clip").is_constant_below_zero(bench.layer("Clip", f"clip_param {{ min: {low} max: 6 }}"))

    assert [ignores(low) for low in (-0.5, 0, 1)] == [False, True, True]


def test_it_may_run_in_place():
    assert LAYERS.get("Clip").in_place
