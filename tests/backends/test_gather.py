"""The primitives that pick entries: gather and unfold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import ConvGeometry


@pytest.mark.parametrize("axis", [1, -1])
def test_gather_picks_entries_along_an_axis(compute, axis):
    top = compute(lambda ops, x, i: ops.gather(x, i, axis), [[1, 2, 3], [4, 5, 6]], [2, 0.9, 0])
    assert top.tolist() == [[3, 1, 1], [6, 4, 4]]


def test_the_axes_of_the_indices_take_the_place_of_the_one_they_pick_from(compute):
    top = compute(lambda ops, x, i: ops.gather(x, i, 0), [[1, 2], [3, 4]], [[[0, 1]]])
    assert top.tolist() == [[[[1, 2], [3, 4]]]]
    assert compute(lambda ops, x, i: ops.gather(x, i, 0), [5, 6], 1).tolist() == 6


def test_gather_along_no_axis_is_refused(refuse):
    assert "axis 2 is out of range for 2x3" in refuse(lambda ops, x, i: ops.gather(x, i, 2), (2, 3), (1,))


def test_an_index_that_is_out_of_range_names_the_layer():
    ops = OnnxOps()
    x, indices = ops.input("x", (3,)), ops.input("i", (1,))
    with ops.scope("block/pick"):
        top = ops.gather(x, indices, 0)
    session = lower(ops.graph, {"top": top}).session(threads=1)
    assert session.run({"x": np.arange(3), "i": np.array([2])})["top"].tolist() == [2]
    with pytest.raises(RistrettoError) as refused:
        session.run({"x": np.arange(3), "i": np.array([-3])})
    said = 'layer "block/pick": an index into 3 entries is negative, too large or not a number.'
    assert str(refused.value).startswith(said)


@st.composite
def geometries(draw):
    def each(least, most):
        return tuple(draw(st.lists(st.integers(least, most), min_size=axes, max_size=axes)))

    axes = draw(st.integers(1, 3))
    return each(1, 6), each(1, 3), each(1, 3), each(0, 2), each(1, 2)


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_conv_is_a_product_with_what_unfold_gives(compute, refuse, geometry):
    extent, kernel, stride, pad, dilation = geometry
    place = ConvGeometry(stride, pad, dilation)

    def unfold(ops, x):
        return ops.unfold(x, kernel, place)

    x = np.random.default_rng(0).integers(-9, 9, (2, 3, *extent)).astype(np.float32)
    if any(n + 2 * p < d * (k - 1) + 1 for n, k, p, d in zip(extent, kernel, pad, dilation, strict=True)):
        assert "is larger than the input" in refuse(unfold, x.shape)
        return
    columns = compute(unfold, x)
    weight = np.random.default_rng(1).integers(-9, 9, (4, 3, *kernel)).astype(np.float32)
    product = np.einsum("nk...,fk->nf...", columns, weight.reshape(4, -1))
    assert np.array_equal(product, compute(lambda ops, a, w: ops.conv(a, w, None, place), x, weight))


def test_unfold_of_what_is_no_image_is_refused(refuse):
    said = refuse(lambda ops, x: ops.unfold(x, (1,), ConvGeometry.dense(1)), (2, 3))
    assert "do not fit an input 2x3" in said


@pytest.mark.parametrize("change", [{"stride": (1,)}, {"pad": (0,)}, {"dilation": (1, 1, 1)}])
def test_unfold_wants_an_entry_for_each_axis(refuse, change):
    place = replace(ConvGeometry.dense(2), **change)
    assert "one entry per spatial axis" in refuse(lambda ops, x: ops.unfold(x, (1, 1), place), (1, 1, 2, 2))


def test_softplus_is_exact_for_large_numbers(compute):
    top = compute(lambda ops, x: ops.softplus(x), [-20, 0, 20, 200])
    np.testing.assert_allclose(top, [2.0611536e-09, 0.69314718, 20, 200], rtol=1e-5)
