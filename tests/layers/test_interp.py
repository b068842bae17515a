"""Interp."""

import numpy as np
import pytest

X = np.array([[0, 2, 4], [6, 8, 10]]).reshape(1, 1, 2, 3)


def interpolated(bench, settings, x=X):
    (top,) = bench.run("Interp", f"interp_param {{ {settings} }}", [x])
    return top


@pytest.mark.parametrize("settings", ["height: 3 width: 5", "zoom_factor: 2"])
def test_corners_stay_and_between_them_is_a_straight_line(bench, settings):
    top = interpolated(bench, settings)
    assert top[0, 0].tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 9, 10]]


def test_one_row_or_column_is_the_first(bench):
    assert interpolated(bench, "height: 1 width: 1").tolist() == [[[[0]]]]


def test_shrink_factor_takes_every_second(bench):
    x = np.arange(25).reshape(1, 1, 5, 5)
    assert interpolated(bench, "shrink_factor: 2", x)[0, 0].tolist() == [[0, 2, 4], [10, 12, 14], [20, 22, 24]]


def test_both_factors_first_shrink_and_then_zoom(bench):
    x = np.zeros((1, 1, 9, 5))
    assert interpolated(bench, "shrink_factor: 4 zoom_factor: 3", x).shape == (1, 1, 7, 4)  # 3 by 2, then 3 apart


def test_pads_cut_off(bench):
    x = np.arange(16).reshape(1, 1, 4, 4)
    top = interpolated(bench, "pad_beg: -1 pad_end: -1 zoom_factor: 1", x)
    assert top[0, 0].tolist() == [[5, 6], [9, 10]]


@pytest.mark.parametrize(("height", "width"), [(7, 4), (2, 9), (13, 13)])
def test_any_size_is_what_the_two_nearest_rows_and_columns_give(bench, height, width):
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    expected = np.zeros((2, 3, height, width))
    for row, column in np.ndindex(height, width):
        down, across = row * 4 / (height - 1), column * 5 / (width - 1)
        up, left = int(down), int(across)
        low, right = min(up + 1, 4), min(left + 1, 5)
        above = x[..., up, left] * (1 - across + left) + x[..., up, right] * (across - left)
        below = x[..., low, left] * (1 - across + left) + x[..., low, right] * (across - left)
        expected[..., row, column] = above * (1 - down + up) + below * (down - up)
    assert interpolated(bench, f"height: {height} width: {width}", x) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("", "no size is given"),
        ("height: 3", "no size is given"),
        ("height: 3 width: 0", "must be 1 or more"),
        ("height: -3 width: 2", "must be 1 or more"),
        ("zoom_factor: 0", "must be 1 or more"),
        ("shrink_factor: -1", "must be 1 or more"),
        ("zoom_factor: 2 pad_beg: 1", "must be 0 or less"),
        ("zoom_factor: 2 pad_beg: -1 pad_end: -1", "remove all of 1x1x2x3"),
        ("height: 2000000000 width: 2000000000", "too many elements"),
        ("zoom_factor: 2147483647", "too many elements"),
    ],
)
def test_sizes_that_cannot_be_are_refused(bench, settings, what):
    assert what in bench.refusal("Interp", f"interp_param {{ {settings} }}", [X.shape])


def test_a_bottom_that_is_no_image_is_refused(bench):
    assert "must have 4" in bench.refusal("Interp", "interp_param { zoom_factor: 2 }", [(1, 2, 3)])
