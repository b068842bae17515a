"""Reorg."""

import numpy as np
import pytest


def reorg(bench, settings, x):
    (top,) = bench.run("Reorg", f"reorg_param {{ {settings} }}", [x])
    return top


def test_the_bottom_is_read_as_larger_planes_and_taken_apart(bench):
    # Four planes of 2 x 2 are read as one of 4 x 4, with rows 0 1 2 3, 4 5 6 7, ...
    top = reorg(bench, "stride: 2", np.arange(16).reshape(1, 4, 2, 2))
    assert top.shape == (1, 16, 1, 1)
    assert top.ravel().tolist() == [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]


def test_reversed_the_channels_become_blocks(bench):
    top = reorg(bench, "stride: 2 reverse: true", [[[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]])
    assert top.tolist() == [[[[0, 2, 1, 3], [4, 6, 5, 7]]]]


def test_each_item_is_taken_apart_on_its_own(bench):
    x = np.arange(32).reshape(2, 4, 2, 2)
    top = reorg(bench, "stride: 2", x)
    assert np.array_equal(top[1], reorg(bench, "stride: 2", x[1:])[0])


@pytest.mark.parametrize("stride", [2, 3])
def test_every_value_goes_where_darknet_puts_it(bench, stride):
    block, height, width = stride * stride, 2 * stride, stride
    x = np.random.default_rng(0).normal(size=(1, 2 * block, height, width)).astype(np.float32)
    larger = x.reshape(2, height * stride, width * stride)
    apart = np.empty_like(x[0])
    for channel, row, column in np.ndindex(apart.shape):
        group, plane = divmod(channel, 2)
        apart[channel, row, column] = larger[plane, row * stride + group // stride, column * stride + group % stride]
    top = reorg(bench, f"stride: {stride}", x)
    assert top.shape == (1, 2 * block * block, 2, 1)
    assert np.array_equal(top.ravel(), apart.ravel())


def test_the_shapes_are_those_of_yolo_v2(bench):
    assert reorg(bench, "stride: 2", np.zeros((1, 64, 26, 26))).shape == (1, 256, 13, 13)
    assert reorg(bench, "stride: 2 reverse: true", np.zeros((1, 256, 13, 13))).shape == (1, 64, 26, 26)


@pytest.mark.parametrize(
    ("settings", "shape", "what"),
    [
        ("", (1, 4, 2, 2), "stride must be 1 to 32768, not 0"),
        ("stride: 4294967295", (1, 4, 2, 2), "stride must be 1 to 32768"),
        ("stride: 2", (1, 6, 2, 2), "6 channels cannot be split into groups for stride 2: 4 are needed"),
        ("stride: 2 reverse: true", (1, 6, 2, 2), "6 channels cannot be split"),
        ("stride: 2", (1, 4, 2, 3), "planes of 2x3 cannot be split into blocks of 2x2"),
        ("stride: 2", (4, 2, 2), "must have 4"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(bench, settings, shape, what):
    assert what in bench.refusal("Reorg", f"reorg_param {{ {settings} }}", [shape])
