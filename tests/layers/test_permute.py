"""Permute."""

import numpy as np
import pytest

X = np.arange(6).reshape(1, 2, 1, 3)


def permuted(bench, order):
    (top,) = bench.run("Permute", f"permute_param {{ {' '.join(f'order: {axis}' for axis in order)} }}", [X])
    return top


def test_channels_go_after_the_places(bench):
    assert permuted(bench, [0, 2, 3, 1]).tolist() == [[[[0, 3], [1, 4], [2, 5]]]]


def test_axes_that_are_not_named_follow_as_they_are(bench):
    assert permuted(bench, [3]).tolist() == [[[[0], [3]]], [[[1], [4]]], [[[2], [5]]]]


def test_without_an_order_nothing_changes(bench):
    assert permuted(bench, []).tolist() == X.tolist()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("order: 4", "order contains axis 4, but the bottom has shape 1x2x1x3"),
        ("order: 1 order: 1", "an axis twice: 1, 1"),
    ],
)
def test_an_order_that_is_none_is_refused(bench, settings, what):
    assert what in bench.refusal("Permute", f"permute_param {{ {settings} }}", [X.shape])
