"""ROIPooling."""

import math

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError

X = np.arange(16).reshape(1, 1, 4, 4)


def pooled(bench, settings, x, rois):
    (top,) = bench.run("ROIPooling", f"roi_pooling_param {{ {settings} }}", [x, rois])
    return top


def test_a_region_includes_its_last_row_and_column(bench):
    assert pooled(bench, "pooled_h: 2 pooled_w: 2", X, [[0, 1, 1, 2, 2]]).tolist() == [[[[5, 6], [9, 10]]]]


def test_the_first_number_names_the_item(bench):
    x = np.arange(8).reshape(2, 1, 2, 2)
    assert pooled(bench, "pooled_h: 1 pooled_w: 1", x, [[1, 0, 0, 1, 1], [0, 0, 0, 1, 1]]).ravel().tolist() == [7, 3]


def test_corners_are_scaled_and_rounded_halves_away_from_zero(bench):
    # 1 and 5 become 0.5 and 2.5, and so 1 and 3.
    top = pooled(bench, "pooled_h: 1 pooled_w: 3 spatial_scale: 0.5", X, [[0, 1, 1, 5, 1]])
    assert top.tolist() == [[[[5, 6, 7]]]]


def test_cells_outside_of_the_map_are_0(bench):
    assert pooled(bench, "pooled_h: 1 pooled_w: 2", X - 20, [[0, 3, 0, 4, 0]]).tolist() == [[[[-17, 0]]]]


def test_regions_may_have_more_axes(bench):
    rois = np.array([0, 1, 1, 2, 2]).reshape(1, 5, 1, 1)
    assert pooled(bench, "pooled_h: 1 pooled_w: 1", X, rois).tolist() == [[[[10]]]]


@pytest.mark.parametrize("item", [1, -1, float("nan")])
def test_a_region_of_an_item_that_is_not_there_is_reported(bench, item):
    with pytest.raises(RistrettoError, match="negative, too large or not a number"):
        pooled(bench, "pooled_h: 1 pooled_w: 1", X, [[item, 0, 0, 1, 1]])


def half_away(number):
    return math.floor(abs(number) + 0.5) * (1 if number >= 0 else -1)


def test_any_region_is_cut_as_fast_r_cnn_cuts_it(bench):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 9, 11)).astype(np.float32)
    low = rng.uniform(-8, 60, (20, 2))
    rois = np.column_stack([rng.integers(0, 2, 20), low, low + rng.uniform(-4, 50, (20, 2))]).astype(np.float32)
    expected = np.zeros((20, 3, 3, 4), np.float32)
    for r, (item, *corners) in enumerate(rois):
        left, top, right, bottom = (half_away(corner * 0.125) for corner in corners)
        high, wide = max(bottom - top + 1, 1) / 3, max(right - left + 1, 1) / 4
        for i, j in np.ndindex(3, 4):
            rows = slice(*(min(max(n + top, 0), 9) for n in (math.floor(i * high), math.ceil((i + 1) * high))))
            columns = slice(*(min(max(n + left, 0), 11) for n in (math.floor(j * wide), math.ceil((j + 1) * wide))))
            cell = x[int(item), :, rows, columns]
            if cell.size:
                expected[r, :, i, j] = cell.max(axis=(1, 2))
    settings = "pooled_h: 3 pooled_w: 4 spatial_scale: 0.125"
    assert np.array_equal(pooled(bench, settings, x, rois), expected)


@pytest.mark.parametrize(
    ("settings", "shapes", "what"),
    [
        ("pooled_h: 2", [(1, 1, 4, 4), (1, 5)], "pooled_h or pooled_w is missing"),
        ("pooled_h: 2 pooled_w: 2 spatial_scale: 0", [(1, 1, 4, 4), (1, 5)], "spatial_scale must be more than 0"),
        ("pooled_h: 2 pooled_w: 2 spatial_scale: nan", [(1, 1, 4, 4), (1, 5)], "spatial_scale must be more than 0"),
        ("pooled_h: 2 pooled_w: 2", [(1, 1, 4, 4), (1, 4)], "regions have 5 numbers each"),
        ("pooled_h: 2 pooled_w: 2", [(1, 1, 4), (1, 5)], "must have 4"),
        ("pooled_h: 4294967295 pooled_w: 4294967295", [(1, 1, 4, 4), (1, 5)], "too many elements"),
    ],
)
def test_what_cannot_be_cut_is_refused(bench, settings, shapes, what):
    assert what in bench.refusal("ROIPooling", f"roi_pooling_param {{ {settings} }}", shapes)
