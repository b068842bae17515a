"""Products of eight-bit integers: when they are exact, and which kernels can compute them."""

from dataclasses import replace

import numpy as np
import pytest

from ristretto_cli.backends.onnx_integers import IntegerForm, Kernel, Operation, Product, Weights, fits_bytes
from ristretto_cli.ops import ConvGeometry, Grid

BYTES = Grid(0, -128, 127)


def product(weight, bias=None, *, steps=BYTES, frac_bits=0, group=1):
    """An inner product with these weights, (N, K), or a convolution, (N, K, *kernel)."""
    weight = np.asarray(weight, np.float32)
    return Product(
        steps=steps,
        weight=weight,
        weight_grid=Grid(frac_bits, -(2**15), 2**15),
        bias=None if bias is None else np.asarray(bias, np.float32),
        shape=(1, weight.shape[0]),
        geometry=ConvGeometry.dense(weight.ndim - 2, group=group) if weight.ndim > 2 else None,
    )


def test_weights_become_multiples_of_their_step_and_biases_of_the_sums_unit():
    form = product([[0.5, -32]], [1.5], steps=Grid(3, -128, 127), frac_bits=2).integer_form(Grid(1, -128, 127))
    assert form.weight.tolist() == [[2, -128]]
    assert form.weight.dtype == np.int8
    assert form.bias.tolist() == [48]  # 1.5 in units of 2^-5
    assert form.has_remainder.tolist() == [False]


@pytest.mark.parametrize(("bias", "below"), [(0.25, 0), (-0.25, -1), (3, 3), (-3.75, -4), (2.0**-30, 0)])
def test_a_bias_between_two_units_is_rounded_down_and_known_to_have_a_rest(bias, below):
    form = IntegerForm(product([[1]], [bias]), BYTES)
    assert (form.bias.tolist(), form.has_remainder.tolist()) == ([below], [bias != below])


@pytest.mark.parametrize("weight", [[[128]], [[-129]], [[1e30]], [[float("inf")]]])
def test_weights_that_are_no_bytes_have_no_integer_form(weight):
    assert product(weight).integer_form(BYTES) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 1, 1, 1)])
def test_convolutions_of_one_and_three_axes_have_none(shape):
    assert product(np.ones(shape)).integer_form(BYTES) is None


@pytest.mark.parametrize("bias", [2.0**31, -(2.0**31), 1e30, float("inf"), float("nan")])
def test_a_bias_beyond_int32_has_none(bias):
    assert product([[1]], [bias]).integer_form(Grid(-30, -128, 127)) is None


@pytest.mark.parametrize("frac_bits", [61, -61, 2**31 - 1, -(2**31)])
def test_grids_that_are_too_far_from_that_of_the_sums_have_none(frac_bits):
    assert product([[0]], [1], frac_bits=frac_bits).integer_form(BYTES) is None
    assert product([[0]], [1]).integer_form(Grid(frac_bits, -128, 127)) is None


def test_sums_that_float32_cannot_hold_are_exact_only_where_they_saturate_anyway():
    """2000 products of up to 127 by 128 are more than 2^24; 128 steps of 2^16 are still below 2^24, of 2^18 not."""
    many = product(np.full((1, 2000), 127))
    assert many.integer_form(Grid(-16, -128, 127)) is not None
    assert many.integer_form(Grid(-18, -128, 127)) is None
    assert product(np.full((1, 900), 127)).integer_form(Grid(-18, -128, 127)) is not None


def test_sums_beyond_int32_have_none():
    assert product(np.full((1, 2**18), 127)).integer_form(BYTES) is None


def test_weights_are_looked_at_in_parts():
    weight = np.ones((3, 2**20), np.float32)
    weight[2, 5] = 100
    form = IntegerForm(product(weight), Grid(-2, -128, 127))
    assert form.weight.sum() == 3 * 2**20 + 99


def kernels(weight, *, steps=BYTES):
    return [kernel.weights for kernel in product(weight, steps=steps).integer_form(BYTES).kernels()]


@pytest.mark.parametrize(
    ("steps", "largest", "bounded"),
    [
        (Grid(0, 0, 127), -128, True),  # 2 * 128 * 127 = 32,512
        (Grid(0, 0, 128), -128, False),  # 32,768
        (BYTES, 64, True),  # 2 * 64 * 255 = 32,640
        (BYTES, -65, False),  # 33,150
        (Grid(0, -64, 63), -128, True),  # bytes from 0 to 127
        (Grid(0, 0, 255), 64, True),
        (Grid(0, -8, 7), -128, True),
    ],
)
def test_pairs_of_small_products_cannot_saturate(steps, largest, bounded):
    wanted = [Weights.SIGNED, *[Weights.SIGNED_BOUNDED] * bounded, Weights.UNSIGNED]
    assert kernels([[1, largest]], steps=steps) == wanted


@pytest.mark.parametrize(
    ("weight", "group", "operation"),
    [
        ((4, 4, 1, 1), 1, Operation.CONV),
        ((4, 2, 1, 1), 2, Operation.GROUPED_CONV),
        ((4, 1, 1, 1), 4, Operation.DEPTHWISE_CONV),
        ((8, 1, 1, 1), 4, Operation.GROUPED_CONV),
        ((4, 4), 1, Operation.GEMM),
    ],
)
def test_the_operation_of_a_product(weight, group, operation):
    assert product(np.ones(weight), group=group).operation is operation


@pytest.mark.parametrize(
    ("weight", "group", "weights", "faster"),
    [
        ((32, 3, 5, 5), 1, Weights.SIGNED, True),
        ((16, 3, 3, 3), 1, Weights.SIGNED, False),
        ((32, 3, 5, 5), 1, Weights.UNSIGNED, False),
        ((64, 3, 3, 3), 1, Weights.UNSIGNED, True),
        ((128, 4, 3, 3), 32, Weights.SIGNED, False),
        ((128, 64, 3, 3), 2, Weights.SIGNED, True),
        ((4, 1, 3, 3), 4, Weights.UNSIGNED, True),
        ((2, 3), 1, Weights.SIGNED, True),
    ],
)
def test_convolutions_of_few_channels_and_filters_are_faster_in_float32(weight, group, weights, faster):
    form = IntegerForm(product(np.ones(weight), group=group), BYTES)
    assert form.is_faster(Kernel(form.product.operation, weights)) is faster


@pytest.mark.parametrize(
    ("grid", "fits"),
    [
        (BYTES, True),
        (Grid(3, 0, 255), True),
        (Grid(0, -254, 1), True),
        (Grid(0, -1, 0), False),
        (Grid(0, 0, 256), False),
        (Grid(0, -128, 128), False),
        (Grid(0, 1, 2), False),
    ],
)
def test_grids_that_fit_bytes(grid, fits):
    assert fits_bytes(grid) is fits


@pytest.mark.parametrize(
    ("largest_sum", "finer", "expected"),
    [(2**10, 13, True), (2**10, 15, False), (2**20, 3, True), (2**20, 5, False), (2**10, -4, True), (2**10, 61, False)],
)
def test_biases_on_a_finer_grid_must_fit_into_float32_together_with_the_sums(largest_sum, finer, expected):
    # The reference adds them as floats: a bias that is lost there must not decide a tie in the integer kernel.
    weight = np.full((1, largest_sum // 128), 1)
    given = replace(product(weight, [2.0**-10]), bias_grid=Grid(finer, -(2**15), 2**15 - 1))
    assert IntegerForm(given, Grid(-3, 0, 255)).is_exact_if_rectified == expected
