"""MVN."""

import numpy as np
import pytest

X = [[[[1, 3]], [[10, 50]]]]  # (1, 2, 1, 2): means 2 and 30, deviations 1 and 20


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [-1, 1, -1, 1]),
        ("normalize_variance: false", [-1, 1, -20, 20]),
        ("normalize_variance: false across_channels: true", [-15, -13, -6, 34]),
        ("eps: 1", [-1 / 2, 1 / 2, -20 / 21, 20 / 21]),  # added to the deviation, not to the variance
    ],
)
def test_mean_and_deviation(bench, settings, expected):
    (top,) = bench.run("MVN", f"mvn_param {{ {settings} }}", [X])
    assert top.shape == (1, 2, 1, 2)
    np.testing.assert_allclose(top.ravel(), expected, rtol=1e-6)


def test_across_channels_an_item_has_one_deviation(bench):
    (top,) = bench.run("MVN", "mvn_param { across_channels: true }", [[[[[0, 0]], [[0, 4]]], [[[2, 2]], [[6, 6]]]]])
    np.testing.assert_allclose(top[0].ravel(), np.array([-1, -1, -1, 3]) / np.sqrt(3), rtol=1e-6)
    assert top[1].ravel().tolist() == [-1, -1, 1, 1]


def test_a_constant_plane_gives_0(bench):
    (top,) = bench.run("MVN", "", [np.full((1, 1, 2, 2), 5)])
    assert top.ravel().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("shape", "top_shape"), [((4,), (4, 1, 1, 1)), ((2, 3), (2, 3, 1, 1)), ((2, 3, 4), (2, 3, 4, 1))]
)
def test_the_top_has_four_axes(bench, shape, top_shape):
    (top,) = bench.run("MVN", "", [np.ones(shape)])
    assert top.shape == top_shape


def test_five_axes_are_refused(bench):
    assert "at most 4 axes" in bench.refusal("MVN", "", [(1, 2, 3, 4, 5)])
