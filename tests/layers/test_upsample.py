"""Upsample."""

import numpy as np
import pytest

X = np.array([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)


def up(bench, settings, *bottoms):
    (top,) = bench.run("Upsample", f"upsample_param {{ {settings} }}", bottoms)
    return top


def mask(*places):
    return np.array(places).reshape(1, 1, 2, 2)


def test_without_a_mask_each_value_is_repeated(bench):
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert up(bench, "", X)[0, 0].tolist() == expected


def test_the_scales_may_differ(bench):
    assert up(bench, "scale_h: 1 scale_w: 3", X)[0, 0].tolist() == [[1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]]


def test_each_plane_is_repeated_on_its_own(bench):
    x = np.arange(4).reshape(2, 2, 1, 1)
    assert up(bench, "scale: 2", x)[:, :, 0, 0].tolist() == [[0, 1], [2, 3]]


def test_with_a_mask_each_value_goes_to_its_place(bench):
    expected = [[0, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0], [3, 0, 4, 0]]
    assert up(bench, "scale: 2", X, mask(1, 7, 12, 14))[0, 0].tolist() == expected


def test_it_undoes_the_pooling_that_made_the_mask(bench):
    x = np.random.default_rng(0).permutation(96).reshape(2, 3, 4, 4) + 1.0
    largest, places = bench.run("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", [x], tops=2)
    top = up(bench, "scale: 2", largest, places)
    kept = np.isin(x, largest)
    assert np.array_equal(top, np.where(kept, x, 0))
    assert kept.sum() == 24


@pytest.mark.parametrize("settings", ["scale: 2 upsample_h: 3 upsample_w: 4", "scale: 2 pad_out_h: true"])
def test_the_size_may_be_odd(bench, settings):
    assert up(bench, settings, X, mask(0, 1, 2, 11))[0, 0].tolist() == [[1, 2, 3, 0], [0, 0, 0, 0], [0, 0, 0, 4]]


def test_values_without_a_place_in_the_plane_are_dropped(bench):
    top = up(bench, "scale: 2", X, mask(-1, 16, 1000000, 15))
    assert top.sum() == 4
    assert top[0, 0, 3, 3] == 4


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("scale: 0", "scale must be 1 to 32768"),
        ("scale: 4294967295", "scale must be 1 to 32768"),
        ("scale_h: 2", "only one of scale_h and scale_w"),
    ],
)
@pytest.mark.parametrize("bottoms", [1, 2])
def test_scales_that_cannot_be_are_refused(bench, settings, what, bottoms):
    assert what in bench.refusal("Upsample", f"upsample_param {{ {settings} }}", [X.shape] * bottoms)


@pytest.mark.parametrize(("bottoms", "what"), [(1, "too many elements"), (2, "too many places")])
def test_planes_that_are_too_large_are_refused(bench, bottoms, what):
    assert what in bench.refusal("Upsample", "upsample_param { scale: 32768 }", [X.shape] * bottoms)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("upsample_h: 1 upsample_w: 4", "must be 2 or more"),
        ("scale: 3 pad_out_w: true", "require a scale of 2"),
        ("upsample_h: 100000 upsample_w: 1000", "too many places"),
    ],
)
def test_sizes_that_a_mask_cannot_fill_are_refused(bench, settings, what):
    assert what in bench.refusal("Upsample", f"upsample_param {{ {settings} }}", [X.shape, X.shape])


def test_sizes_go_with_a_mask_only(bench):
    settings = "upsample_param { upsample_h: 3 upsample_w: 3 }"
    assert "require a mask" in bench.refusal("Upsample", settings, [X.shape])


def test_a_mask_of_another_shape_is_refused(bench):
    assert "places 1x1x2x3 do not fit values 1x1x2x2" in bench.refusal("Upsample", "", [X.shape, (1, 1, 2, 3)])


def test_a_bottom_that_is_no_image_is_refused(bench):
    assert "must have 4" in bench.refusal("Upsample", "", [(1, 2, 3)])
