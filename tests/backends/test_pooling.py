"""Pooling against the loops that define Caffe's windows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ristretto_cli.ops import PoolGeometry

LOWEST = float(np.finfo(np.float32).min)


def windows(extent, geometry):
    """For each place of the top: the count of cells for a mean, and the slices of the image."""
    for place in np.ndindex(*geometry.pooled(extent)):
        count, window = 1, []
        for i, n, k, s, p in zip(place, extent, geometry.kernel, geometry.stride, geometry.pad, strict=True):
            start = i * s - p
            count *= min(start + k, n + p) - start
            window.append(slice(max(start, 0), max(min(start + k, n), 0)))
        yield place, count, tuple(window)


def pool(x, geometry):
    """Maxima, where they stand, and means of x (N, C, H, W), by loops."""
    extent = x.shape[2:]
    shape = (*x.shape[:2], *geometry.pooled(extent))
    largest, where, mean = np.full(shape, LOWEST), np.full(shape, -1.0), np.full(shape, np.nan)
    numbers = np.arange(np.prod(extent)).reshape(extent)
    for place, count, window in windows(extent, geometry):
        for n, c in np.ndindex(*x.shape[:2]):
            cells, numbered = x[n, c][window].ravel(), numbers[window].ravel()
            if cells.size:
                largest[(n, c, *place)] = cells.max()
                where[(n, c, *place)] = numbered[cells.argmax()]
            if count:
                mean[(n, c, *place)] = cells.sum(dtype=np.float64) / count
    return largest, where, mean


def check(compute, extent, geometry):
    x = np.random.default_rng(1).integers(-3, 4, (2, 3, *extent)).astype(np.float32)  # with many equals
    largest, where, mean = pool(x, geometry)
    np.testing.assert_array_equal(compute(lambda ops, v: ops.max_pool(v, geometry), x), largest)
    top, mask = compute(lambda ops, v: ops.max_pool_with_index(v, geometry), x)
    np.testing.assert_array_equal(top, largest)
    np.testing.assert_array_equal(mask, where)
    np.testing.assert_allclose(compute(lambda ops, v: ops.ave_pool(v, geometry), x), mean, rtol=1e-5, atol=1e-6)


@st.composite
def geometries(draw):
    axes = draw(st.integers(1, 3))
    each = []
    for _ in range(axes):
        kernel = draw(st.integers(1, 5))
        pad = draw(st.integers(0, min(kernel - 1, 2)))
        each.append((draw(st.integers(1, 9)), kernel, draw(st.integers(1, 7)), pad))
    extent, kernel, stride, pad = zip(*each, strict=True)
    return extent, PoolGeometry(kernel, stride, pad, draw(st.booleans()))


@settings(max_examples=120, deadline=None)
@given(geometries())
def test_windows_are_caffes(compute, case):
    extent, geometry = case
    assume(min(geometry.pooled(extent)) > 0)
    check(compute, extent, geometry)


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "pad"),
    [
        (6, 2, 5, 0),  # the second window starts at 5 and is cut off
        (6, 2, 3, 1),  # the last would start in the padding and is dropped
        (4, 1, 4, 0),  # the second starts right after the image
        (4, 1, 5, 0),  # the second starts further after it
        (2, 3, 2, 0),  # the only window is larger than the image
        (7, 3, 2, 2),
    ],
)
def test_windows_at_the_border(compute, extent, kernel, stride, pad):
    for ceil in (True, False):
        geometry = PoolGeometry((kernel, 2), (stride, 2), (pad, 0), ceil)
        if min(geometry.pooled((extent, 4))) > 0:
            check(compute, (extent, 4), geometry)


def test_a_window_behind_the_image_gives_the_lowest_number_no_place_and_no_mean(compute):
    x = [[[[1, 2, 3, 4]]]]
    geometry = PoolGeometry(kernel=(1, 1), stride=(1, 4), pad=(0, 0), ceil=True)
    top, mask = compute(lambda ops, v: ops.max_pool_with_index(v, geometry), x)
    assert top.ravel().tolist() == [1, LOWEST]
    assert mask.ravel().tolist() == [0, -1]
    mean = compute(lambda ops, v: ops.ave_pool(v, geometry), x).ravel()
    assert mean[0] == 1
    assert np.isnan(mean[1])


def test_windows_behind_the_image_may_be_pooled_again(compute):
    def build(ops, x):
        first = ops.ave_pool(x, PoolGeometry(kernel=(2, 1), stride=(3, 3), pad=(0, 0), ceil=True))
        return ops.ave_pool(first, PoolGeometry(kernel=(1, 1), stride=(1, 3), pad=(0, 0), ceil=True))

    assert compute(build, [[[[1, 2], [3, 4]]]]).ravel().tolist() == [2, 0]


def test_padding_counts_in_a_mean_but_nothing_beyond_it(compute):
    # Windows from -1, 1 and 3: the first counts a padding cell, the last one more but no third cell.
    geometry = PoolGeometry(kernel=(3,), stride=(2,), pad=(1,), ceil=True)
    top = compute(lambda ops, x: ops.ave_pool(x, geometry), [[[6, 6, 6, 6]]])
    assert top.ravel().tolist() == [4, 6, 3]


def test_padding_never_is_the_maximum(compute):
    geometry = PoolGeometry(kernel=(3, 3), stride=(2, 2), pad=(1, 1), ceil=True)
    assert compute(lambda ops, x: ops.max_pool(x, geometry), [[[[-5, -4], [-3, -2]]]]).max() == -2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": (3,)}, "pooling 3 does not fit an input 1x2x4x5"),
        ({"stride": (1, 0)}, "kernel and stride must be 1 or more, pad 0 or more"),
        ({"pad": (0, 3)}, "padding 0x3 must be smaller than the kernel 3x3"),
        ({"kernel": (3, 9)}, "kernel 3x9 is larger than the input 4x5 with padding 0x0"),
    ],
)
@pytest.mark.parametrize("name", ["max_pool", "max_pool_with_index", "ave_pool"])
def test_windows_that_do_not_fit_are_refused(refuse, name, change, said):
    geometry = replace(PoolGeometry(kernel=(3, 3), stride=(1, 1), pad=(0, 0), ceil=True), **change)
    assert refuse(lambda ops, x: getattr(ops, name)(x, geometry), (1, 2, 4, 5)) == said
