"""LRN."""

import numpy as np
import pytest


def lrn(settings):
    return f"lrn_param {{ {settings} }}"


def test_across_channels_the_sum_is_divided_by_the_size(bench):
    x = np.reshape([1, 2, 3], (1, 3, 1, 1))
    (top,) = bench.run("LRN", lrn("local_size: 3 alpha: 3 beta: 1 k: 2"), [x])
    # squares 1, 4, 9; sums over neighbours 5, 14, 13
    np.testing.assert_allclose(top.ravel(), [1 / 7, 2 / 16, 3 / 15], rtol=1e-6)


def test_within_a_channel_padding_counts_and_k_is_ignored(bench):
    x = np.reshape([1, 2], (1, 1, 1, 2))
    (top,) = bench.run("LRN", lrn("local_size: 3 alpha: 9 beta: 1 k: 50 norm_region: WITHIN_CHANNEL"), [x])
    # each window has 9 cells and the squares 1 + 4
    np.testing.assert_allclose(top.ravel(), [1 / 6, 2 / 6], rtol=1e-6)


def test_the_defaults_are_5_channels_alpha_1_beta_075_k_1(bench):
    x = np.reshape([1, 2, 3], (1, 3, 1, 1))
    (top,) = bench.run("LRN", "", [x])
    np.testing.assert_allclose(top.ravel(), np.array([1, 2, 3]) / (1 + 14 / 5) ** 0.75, rtol=1e-6)


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
@pytest.mark.parametrize(
    ("size", "shape", "said"),
    [
        (4, (1, 2, 3, 3), "local_size must be odd, not 4"),
        (0, (1, 2, 3, 3), "local_size must be odd, not 0"),
        (3, (1, 2, 3), "its bottom has 3 axes and must have 4: (N, C, H, W)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, region, size, shape, said):
    assert bench.refusal("LRN", lrn(f"local_size: {size} norm_region: {region}"), [shape]) == said
