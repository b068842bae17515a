"""Im2col."""

import numpy as np
import pytest

X = [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]]


def conv(settings):
    return f"convolution_param {{ {settings} }}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # a plane for each cell of the window, in reading order
        ("kernel_size: 2", [[[1, 2], [4, 5]], [[2, 3], [5, 6]], [[4, 5], [7, 8]], [[5, 6], [8, 9]]]),
        ("kernel_size: 2 stride: 2", [[[1]], [[2]], [[4]], [[5]]]),
        ("kernel_size: 2 dilation: 2", [[[1]], [[3]], [[7]], [[9]]]),
        ("kernel_h: 1 kernel_w: 3", [[[1], [4], [7]], [[2], [5], [8]], [[3], [6], [9]]]),
        ("kernel_size: 1 pad_h: 1 pad_w: 0 stride_h: 2 stride_w: 1", [[[0, 0, 0], [4, 5, 6], [0, 0, 0]]]),
        ("kernel_size: 3 pad: 1 stride: 4", [[[0]], [[0]], [[0]], [[0]], [[1]], [[2]], [[0]], [[4]], [[5]]]),
        ("kernel_size: 1 num_output: 7 group: 3 force_nd_im2col: true", X[0]),
    ],
)
def test_windows(bench, settings, expected):
    (top,) = bench.run("Im2col", conv(settings), [X])
    assert top.tolist() == [expected]


def test_channels_follow_one_another(bench):
    (top,) = bench.run("Im2col", conv("kernel_size: 2"), [[[[1, 2, 3], [10, 20, 30]]]])
    assert top.tolist() == [[[1, 2], [2, 3], [10, 20], [20, 30]]]


def test_axes_before_the_channels_are_the_batch(bench):
    x = np.arange(8).reshape(2, 2, 1, 2)
    (top,) = bench.run("Im2col", conv("kernel_size: 2 axis: 2"), [x])
    assert top.shape == (2, 2, 2, 1)
    assert top.reshape(4, 2).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_three_spatial_axes(bench):
    (top,) = bench.run("Im2col", conv("kernel_size: 2"), [np.arange(8).reshape(1, 1, 2, 2, 2)])
    assert top.shape == (1, 8, 1, 1, 1)
    assert top.ravel().tolist() == list(range(8))


def test_infinite_values_stay_in_their_place(bench):
    (top,) = bench.run("Im2col", conv("kernel_size: 2"), [[[[1, np.inf, 3]]]])
    assert top.tolist() == [[[1, np.inf], [np.inf, 3]]]


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ("", (1, 2, 4, 4), "kernel_size is missing"),
        ("kernel_size: 0", (1, 2, 4, 4), "kernel_size must be at least 1"),
        ("kernel_size: 2 stride: 0", (1, 2, 4, 4), "stride must be at least 1"),
        ("kernel_size: 2 kernel_size: 2", (1, 2, 4, 4, 4), "kernel_size is given 2 times"),
        ("kernel_size: 2 kernel_h: 2 kernel_w: 2", (1, 2, 4, 4), "kernel_size cannot be combined with kernel_h"),
        ("kernel_h: 2 kernel_w: 2", (1, 2, 4), "kernel_h and kernel_w need 2 spatial axes"),
        ("kernel_size: 5", (1, 2, 4, 4), "kernel 5x5 with dilation 1x1 is larger than the input 4x4"),
        ("kernel_size: 1 axis: 3", (1, 2, 4, 4), "a bottom of shape 1x2x4x4 has no axes after the channels"),
        ("kernel_size: 1 axis: 4", (1, 2, 4, 4), "axis 4 is out of range"),
        ("kernel_size: 1000000000 pad: 1000000000", (1, 1, 4, 4), "has too many elements"),
        ("kernel_size: 1000000000 pad: 1000000000", (1, 1, 4), "has too many elements"),
        ("kernel_size: 60000", (1, 1, 120000), "a blob of shape 1x60000x60001 has too many elements"),
        ("kernel_size: 1 pad: 2147483648", (1, 1, 4), "has too many elements"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, shape, said):
    assert said in bench.refusal("Im2col", conv(settings), [shape])
