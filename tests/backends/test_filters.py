"""Convolution, deconvolution, matrices and LRN against loops in numpy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ristretto_cli.ops import ConvGeometry

RNG = np.random.default_rng(0)


def correlate(x, weight, bias, geometry):
    """Convolution as its definition has it, in double precision."""
    axes, stride, dilation = x.ndim - 2, geometry.stride, geometry.dilation
    kernel = weight.shape[2:]
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *((p, p) for p in geometry.pad)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    extent = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    top = np.zeros((x.shape[0], weight.shape[0], *extent))
    inputs, outputs = weight.shape[1], weight.shape[0] // geometry.group
    for place in np.ndindex(*extent):
        window = tuple(slice(place[i] * stride[i], place[i] * stride[i] + reach[i], dilation[i]) for i in range(axes))
        for filter_ in range(weight.shape[0]):
            first = filter_ // outputs * inputs
            part = x[(slice(None), slice(first, first + inputs), *window)]
            top[(slice(None), filter_, *place)] = (part * weight[filter_]).sum(axis=tuple(range(1, axes + 2)))
    return top + bias.reshape(1, -1, *[1] * axes)


def spread(x, weight, bias, geometry):
    """Deconvolution as its definition has it: each number adds a scaled filter to the top."""
    axes, stride, dilation = x.ndim - 2, geometry.stride, geometry.dilation
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    extent = [s * (n - 1) + r for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    outputs, inputs = weight.shape[1], x.shape[1] // geometry.group
    top = np.zeros((x.shape[0], outputs * geometry.group, *extent))
    for n, c, *place in np.ndindex(*x.shape):
        window = tuple(slice(place[i] * stride[i], place[i] * stride[i] + reach[i], dilation[i]) for i in range(axes))
        first = c // inputs * outputs
        top[(n, slice(first, first + outputs), *window)] += np.float64(x[(n, c, *place)]) * weight[c]
    cut = tuple(slice(p, e - p) for p, e in zip(geometry.pad, extent, strict=True))
    return top[(slice(None), slice(None), *cut)] + bias.reshape(1, -1, *[1] * axes)


@st.composite
def geometries(draw):
    axes = draw(st.integers(1, 3))
    each = [
        draw(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5), st.integers(1, 3)))
        for _ in range(axes)
    ]
    return (draw(st.integers(1, 3)), *zip(*each, strict=True))


def _numbers(*shape):
    return RNG.integers(-8, 9, shape).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(geometries())
def test_conv_is_cross_correlation(compute, refuse, case):
    group, extent, kernel, stride, pad, dilation = case
    x, weight, bias = _numbers(2, 2 * group, *extent), _numbers(3 * group, 2, *kernel), _numbers(3 * group)
    geometry = ConvGeometry(stride, pad, dilation, group)

    def build(ops, *operands):
        return ops.conv(*operands, geometry)

    if any(n + 2 * p < d * (k - 1) + 1 for n, k, p, d in zip(extent, kernel, pad, dilation, strict=True)):
        assert "is larger than the input" in refuse(build, x.shape, weight.shape, bias.shape)
        return
    np.testing.assert_array_equal(compute(build, x, weight, bias), correlate(x, weight, bias, geometry))


@settings(max_examples=80, deadline=None)
@given(geometries())
def test_deconv_is_the_transpose_of_conv(compute, refuse, case):
    group, extent, kernel, stride, pad, dilation = case
    x, weight, bias = _numbers(2, 2 * group, *extent), _numbers(2 * group, 3, *kernel), _numbers(3 * group)
    geometry = ConvGeometry(stride, pad, dilation, group)

    def build(ops, *operands):
        return ops.deconv(*operands, geometry)

    if any(
        s * (n - 1) + d * (k - 1) + 1 <= 2 * p
        for n, k, s, p, d in zip(extent, kernel, stride, pad, dilation, strict=True)
    ):
        assert "removes the whole output" in refuse(build, x.shape, weight.shape, bias.shape)
        return
    np.testing.assert_array_equal(compute(build, x, weight, bias), spread(x, weight, bias, geometry))


def test_filters_work_without_a_bias(compute):
    plain = ConvGeometry.dense(1)
    assert compute(lambda ops, x, w: ops.conv(x, w, None, plain), [[[1, 2, 3]]], [[[1, 10]]]).tolist() == [[[21, 32]]]
    assert compute(lambda ops, x, w: ops.deconv(x, w, None, plain), [[[1, 2]]], [[[1, 10]]]).tolist() == [[[1, 12, 20]]]


@pytest.mark.parametrize(
    ("name", "weight", "change", "said"),
    [
        ("conv", (4, 3, 3, 3), {"group": 3}, "4 channels to 4 cannot be split into 3 groups"),
        ("conv", (4, 4, 3, 3), {"group": 2}, "weights 4x4x3x3 in 2 groups do not fit 1x4x5x5"),
        ("conv", (4, 4, 3), {}, "weights 4x4x3 do not fit an input 1x4x5x5"),
        ("conv", (4, 4, 3, 3), {"stride": (1,)}, "must have one entry per spatial axis of 1x4x5x5"),
        ("conv", (4, 4, 3, 3), {"stride": (0, 1)}, "kernel, stride and dilation must be 1 or more"),
        ("conv", (4, 4, 7, 3), {}, "kernel 7x3 with dilation 1x1 is larger than the input 5x5"),
        ("deconv", (3, 4, 3, 3), {}, "weights 3x4x3x3 in 1 groups do not fit 1x4x5x5"),
        ("deconv", (4, 4, 3, 3), {"group": 3}, "4 channels cannot be split into 3 groups"),
        ("deconv", (4, 4, 3, 3), {"pad": (4, 0)}, "padding 4x0 removes the whole output"),
    ],
)
def test_filters_that_do_not_fit_are_refused(refuse, name, weight, change, said):
    geometry = replace(ConvGeometry.dense(2), **change)
    assert said in refuse(lambda ops, x, w: getattr(ops, name)(x, w, None, geometry), (1, 4, 5, 5), weight)


def test_a_bias_of_the_wrong_length_is_refused(refuse):
    said = refuse(lambda ops, x, w, b: ops.linear(x, w, b), (2, 3), (4, 3), (5,))
    assert said == "a bias 5 does not fit 4 outputs"


def test_linear_takes_weights_by_output(compute):
    x, weight, bias = [[1, 2, 3]], [[1, 0, 0], [1, 1, 1]], [10, 20]
    assert compute(lambda ops, *v: ops.linear(*v), x, weight, bias).tolist() == [[11, 26]]
    assert compute(lambda ops, a, w: ops.linear(a, w, None), x, weight).tolist() == [[1, 6]]


def test_matmul_broadcasts_the_leading_axes(compute):
    a, b = _numbers(2, 1, 3, 4), _numbers(5, 4, 2)
    np.testing.assert_array_equal(compute(lambda ops, x, y: ops.matmul(x, y), a, b), a @ b)


@pytest.mark.parametrize("shape", [(2, 7), (2, 7, 3), (2, 7, 3, 2), (1, 2, 3, 2, 2)])
def test_lrn_takes_the_neighbouring_channels_that_there_are(compute, shape):
    x = RNG.standard_normal(shape).astype(np.float32)
    top = compute(lambda ops, v: ops.lrn(v, size=5, alpha=2, beta=0.75, k=1), x)
    for channel in range(shape[1]):
        squares = (x[:, max(channel - 2, 0) : channel + 3].astype(np.float64) ** 2).sum(1)
        expected = x[:, channel] / (1 + 2 / 5 * squares) ** 0.75
        np.testing.assert_allclose(top[:, channel], expected, rtol=1e-5, atol=1e-6)


def test_lrn_of_an_even_number_of_channels_is_refused(refuse):
    said = refuse(lambda ops, x: ops.lrn(x, size=4, alpha=1, beta=1, k=1), (1, 3, 2, 2))
    assert said == "local_size must be odd, not 4"
