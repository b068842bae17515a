"""PSROIPooling."""

import math

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError

X = np.arange(16).reshape(1, 1, 4, 4)
ONE = "spatial_scale: 1 output_dim: 1 group_size: 1"


def pooled(bench, settings, x, rois):
    (top,) = bench.run("PSROIPooling", f"psroi_pooling_param {{ {settings} }}", [x, rois])
    return top


def test_a_region_includes_its_last_row_and_column(bench):
    assert pooled(bench, ONE, X, [[0, 1, 1, 2, 2]]).tolist() == [[[[7.5]]]]  # the mean of 5, 6, 9 and 10


def test_each_cell_has_channels_of_its_own(bench):
    x = np.arange(8).reshape(1, 8, 1, 1) * np.ones((1, 8, 4, 4))
    top = pooled(bench, "spatial_scale: 1 output_dim: 2 group_size: 2", x, [[0, 0, 0, 3, 3]])
    assert top.tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]


def test_cells_that_share_a_pixel_both_count_it(bench):
    x = np.broadcast_to([1, 2, 4], (1, 4, 3, 3))
    # Half of 3 columns is 0 to 1.5 and 1.5 to 3: pixels 0 and 1, and 1 and 2.
    top = pooled(bench, "spatial_scale: 1 output_dim: 1 group_size: 2", x, [[0, 0, 0, 2, 2]])
    assert top.tolist() == [[[[1.5, 3], [1.5, 3]]]]


def test_corners_are_rounded_before_they_are_scaled(bench):
    # 0.5 and 2.5 become 1 and 3, the end 4; by half, 0.5 to 2: pixels 0 and 1.
    top = pooled(bench, "spatial_scale: 0.5 output_dim: 1 group_size: 1", X, [[0, 0.5, 0, 2.5, 0]])
    assert top.tolist() == [[[[0.5]]]]


def test_the_first_number_names_the_item(bench):
    x = np.array([3, 7]).reshape(2, 1, 1, 1)
    assert pooled(bench, ONE, x, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).ravel().tolist() == [7, 3]


def test_cells_outside_of_the_map_are_0(bench):
    assert pooled(bench, ONE, X + 1, [[0, 9, 9, 12, 12], [0, -9, 0, -7, 0]]).ravel().tolist() == [0, 0]


def test_regions_may_have_more_axes(bench):
    assert pooled(bench, ONE, X, np.array([0, 1, 1, 2, 2]).reshape(1, 5, 1, 1)).tolist() == [[[[7.5]]]]


@pytest.mark.parametrize("item", [1, -1, float("nan")])
def test_a_region_of_an_item_that_is_not_there_is_reported(bench, item):
    with pytest.raises(RistrettoError, match="negative, too large or not a number"):
        pooled(bench, ONE, X, [[item, 0, 0, 1, 1]])


def rounded(number):
    return math.copysign(math.floor(abs(number) + 0.5), number)


def test_any_region_is_cut_as_r_fcn_cuts_it(bench):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 18, 9, 11)).astype(np.float32)
    low = rng.uniform(-20, 80, (20, 2))
    rois = np.column_stack([rng.integers(0, 2, 20), low, low + rng.uniform(-10, 60, (20, 2))]).astype(np.float32)
    scale = np.float32(0.125)
    expected = np.zeros((20, 2, 3, 3), np.float32)
    for r, d, i, j in np.ndindex(expected.shape):
        item, *corners = rois[r].tolist()
        left, top = (np.float32(rounded(corner)) * scale for corner in corners[:2])
        right, bottom = (np.float32(rounded(corner) + 1) * scale for corner in corners[2:])
        high, wide = (np.float32(max(n, 0.1)) / np.float32(3) for n in (bottom - top, right - left))
        rows = [
            min(max(n, 0), 9)
            for n in (math.floor(np.float32(i) * high + top), math.ceil(np.float32(i + 1) * high + top))
        ]
        columns = [
            min(max(n, 0), 11)
            for n in (math.floor(np.float32(j) * wide + left), math.ceil(np.float32(j + 1) * wide + left))
        ]
        cell = x[int(item), (d * 3 + i) * 3 + j, slice(*rows), slice(*columns)]
        if cell.size:
            expected[r, d, i, j] = cell.mean()
    found = pooled(bench, "spatial_scale: 0.125 output_dim: 2 group_size: 3", x, rois)
    assert np.allclose(found, expected, rtol=0, atol=1e-6)
    assert (expected == 0).mean() > 0.1  # some regions are outside


@pytest.mark.parametrize(
    ("settings", "shapes", "what"),
    [
        ("output_dim: 1", [(1, 1, 4, 4), (1, 5)], "group_size must be 1 to 256"),
        ("output_dim: 1 group_size: 257", [(1, 257 * 257, 4, 4), (1, 5)], "group_size must be 1 to 256"),
        ("output_dim: -1 group_size: 1", [(1, 1, 4, 4), (1, 5)], "output_dim 1 or more"),
        ("output_dim: 1 group_size: 1", [(1, 1, 4, 4), (1, 5)], "spatial_scale must be more than 0, not 0"),
        ("output_dim: 1 group_size: 1 spatial_scale: inf", [(1, 1, 4, 4), (1, 5)], "spatial_scale must be"),
        (
            "output_dim: 2 group_size: 3 spatial_scale: 1",
            [(1, 9, 4, 4), (1, 5)],
            "output_dim 2 and group_size 3 need 18",
        ),
        ("output_dim: 1 group_size: 1 spatial_scale: 1", [(1, 1, 4, 4), (1, 4)], "regions have 5 numbers each"),
        ("output_dim: 1 group_size: 1 spatial_scale: 1", [(1, 4, 4), (1, 5)], "must have 4"),
        ("output_dim: 1 group_size: 1 spatial_scale: 1", [(1, 1, 999, 999), (9999, 5)], "too many elements"),
    ],
)
def test_what_cannot_be_cut_is_refused(bench, settings, shapes, what):
    assert what in bench.refusal("PSROIPooling", f"psroi_pooling_param {{ {settings} }}", shapes)
