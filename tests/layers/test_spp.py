"""SPP."""

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN

X = np.arange(1, 17).reshape(1, 1, 4, 4)


def spp(settings):
    return f"spp_param {{ {settings} }}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("pyramid_height: 2", [16, 6, 8, 14, 16]),
        ("pyramid_height: 2 pool: AVE", [8.5, 3.5, 5.5, 11.5, 13.5]),
        ("pyramid_height: 3", [16, 6, 8, 14, 16, *range(1, 17)]),
    ],
)
def test_each_level_has_twice_as_many_windows_on_each_axis(bench, settings, expected):
    (top,) = bench.run("SPP", spp(settings), [X])
    assert top.tolist() == [expected]


def test_channels_are_joined_level_by_level(bench):
    (top,) = bench.run("SPP", spp("pyramid_height: 2"), [np.concatenate([X, -X], axis=1)])
    assert top.tolist() == [[16, -1, 6, 8, 14, 16, -1, -3, -9, -11]]


def test_one_level_is_not_flattened(bench):
    (top,) = bench.run("SPP", spp("pyramid_height: 1 pool: AVE"), [X])
    assert top.tolist() == [[[[8.5]]]]


def test_an_odd_image_is_padded_on_both_sides(bench):
    # 3 by 3 with windows of 2 by 2 that start one pixel outside; an average counts the padding.
    image = np.arange(1, 10).reshape(1, 1, 3, 3)
    (largest,) = bench.run("SPP", spp("pyramid_height: 2"), [image])
    assert largest.tolist() == [[9, 1, 3, 7, 9]]
    (mean,) = bench.run("SPP", spp("pyramid_height: 2 pool: AVE"), [image])
    assert mean.tolist() == [[5, 0.25, 1.25, 2.75, 7]]


def test_stochastic_levels_give_what_they_would_draw_on_average(bench):
    (top,) = bench.run("SPP", spp("pyramid_height: 1 pool: STOCHASTIC"), [[[[[1, 3]]]]])
    assert top.tolist() == [[[[2.5]]]]  # (1 + 9) / (1 + 3)


def test_stochastic_levels_draw_in_training(bench):
    (top,) = bench.run("SPP", spp("pyramid_height: 1 pool: STOCHASTIC"), [[[[[0, 3]]]]], phase=TRAIN)
    assert top.tolist() == [[[[3]]]]


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ("", (1, 2, 4, 4), "pyramid_height is missing or 0"),
        ("pyramid_height: 0", (1, 2, 4, 4), "pyramid_height is missing or 0"),
        ("pyramid_height: 2", (2, 4, 4), "its bottom has 3 axes and must have 4"),
        ("pyramid_height: 3", (1, 2, 7, 5), "4 windows of 2x2 on level 2 do not fit an image of 7x5"),
        ("pyramid_height: 4294967295", (1, 2, 8, 8), "16 windows of 1x1 on level 4 do not fit an image of 8x8"),
        ("pyramid_height: 2 pool: STOCHASTIC", (1, 2, 3, 3), "pool STOCHASTIC does not support padding"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, shape, said):
    assert said in bench.refusal("SPP", spp(settings), [shape])
