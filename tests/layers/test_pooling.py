"""Pooling."""

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN

X = [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]]


def pool(settings):
    return f"pooling_param {{ {settings} }}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("kernel_size: 2 stride: 2", [[5, 6], [8, 9]]),
        ("kernel_size: 2 stride: 2 round_mode: FLOOR", [[5]]),
        ("kernel_size: 2 stride: 2 pool: AVE", [[3, 4.5], [7.5, 9]]),
        ("kernel_size: 3 stride: 2 pad: 1 pool: AVE", [[12 / 9, 16 / 9], [24 / 9, 28 / 9]]),
        ("kernel_h: 1 kernel_w: 3", [[3], [6], [9]]),
        ("kernel_size: 1 stride_h: 2 stride_w: 1", [[1, 2, 3], [7, 8, 9]]),
        ("kernel_size: 2 pad_h: 0 pad_w: 1", [[4, 5, 6, 6], [7, 8, 9, 9]]),
        ("global_pooling: true", [[9]]),
        ("global_pooling: true pool: AVE", [[5]]),
    ],
)
def test_windows(bench, settings, expected):
    (top,) = bench.run("Pooling", pool(settings), [X])
    np.testing.assert_allclose(top[0, 0], expected, rtol=1e-6)


def test_a_second_top_says_where_in_its_plane_each_maximum_stands(bench):
    x = np.concatenate([X, X])
    top, mask = bench.run("Pooling", pool("kernel_size: 2"), [x], tops=2)
    assert top[1, 0].tolist() == [[5, 6], [8, 9]]
    assert mask[1, 0].tolist() == [[4, 5], [7, 8]]


def test_of_equal_maxima_the_first_is_named(bench):
    _, mask = bench.run("Pooling", pool("kernel_size: 2"), [np.ones((1, 1, 3, 3))], tops=2)
    assert mask[0, 0].tolist() == [[0, 1], [3, 4]]


def test_stochastic_pooling_gives_what_it_would_draw_on_average(bench):
    (top,) = bench.run("Pooling", pool("kernel_size: 2 stride: 2 pool: STOCHASTIC"), [X])
    assert top[0, 0, 0, 0] == np.float32((1 + 4 + 16 + 25) / 12)
    assert top[0, 0, 1, 1] == 9


def test_stochastic_pooling_of_zeros_gives_0(bench):
    (top,) = bench.run("Pooling", pool("kernel_size: 2 pool: STOCHASTIC"), [np.zeros((1, 1, 3, 3))])
    assert top.tolist() == [[[[0, 0], [0, 0]]]]


def test_stochastic_pooling_draws_in_proportion_to_the_values_in_training(bench):
    x = np.tile([[0, 1], [3, 6]], (1, 1, 50, 50))
    text = pool("kernel_size: 2 stride: 2 pool: STOCHASTIC")
    (top,) = bench.run("Pooling", text, [x], phase=TRAIN)
    values, counts = np.unique(top, return_counts=True)
    assert set(values) <= {0, 1, 3, 6}
    assert np.allclose([counts[values == v].sum() / top.size for v in (1, 3, 6)], [0.1, 0.3, 0.6], atol=0.05)


def test_stochastic_pooling_in_training_keeps_to_the_image(bench):
    text = pool("kernel_size: 2 stride: 2 pool: STOCHASTIC")
    (top,) = bench.run("Pooling", text, [np.full((2, 3, 3, 5), 7)], phase=TRAIN)
    assert (top.shape, set(top.ravel())) == ((2, 3, 2, 3), {7})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "kernel_size is missing or 0"),
        ("kernel_size: 0", "kernel_size is missing or 0"),
        ("kernel_h: 2", "kernel_size cannot be combined with kernel_h and kernel_w"),
        ("kernel_size: 2 kernel_h: 2 kernel_w: 2", "kernel_size cannot be combined with kernel_h and kernel_w"),
        ("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1", "pad cannot be combined with pad_h and pad_w"),
        ("kernel_size: 2 stride_w: 1", "stride cannot be combined with stride_h and stride_w"),
        ("kernel_size: 2 stride: 0", "kernel and stride must be 1 or more"),
        ("kernel_size: 2 pad: 2", "padding 2x2 must be smaller than the kernel 2x2"),
        ("kernel_size: 7", "kernel 7x7 is larger than the input 4x5"),
        ("global_pooling: true kernel_size: 2", "global_pooling excludes a kernel size"),
        ("global_pooling: true stride: 2", "global_pooling requires stride 1 and pad 0"),
        ("kernel_size: 2 pad: 1 pool: STOCHASTIC", "pool STOCHASTIC does not support pad"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, said):
    assert said in bench.refusal("Pooling", pool(settings), [(1, 2, 4, 5)])


def test_only_images_are_pooled(bench):
    assert "3 axes and must have 4" in bench.refusal("Pooling", pool("kernel_size: 2"), [(2, 4, 5)])


def test_only_maxima_have_a_second_top(bench):
    text = pool("kernel_size: 2 pool: AVE")
    assert "expected 1 top with pool AVE, got 2" in bench.refusal("Pooling", text, [(1, 2, 4, 5)], tops=2)


def test_a_huge_window_is_refused_before_anything_is_made_of_it(bench):
    text = pool("kernel_size: 60000 pool: STOCHASTIC")
    assert "too large" in bench.refusal("Pooling", text, [(1, 1, 4, 5)], phase=TRAIN)
