"""Minifloat, value by value."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ristretto_cli.errors import LayerError
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import Rounding

BIT_PATTERNS = arrays(np.uint32, 64).map(lambda bits: bits.view(np.float32))
FORMATS = st.builds(Minifloat, st.integers(0, 24), st.integers(1, 8))
FEW_FORMATS = [Minifloat(*both) for both in [(0, 2), (0, 8), (2, 4), (3, 4), (10, 5), (5, 7), (7, 8), (22, 8), (23, 8)]]


def reference(x, mant_bits, exp_bits):
    """The rule on the integers that make up a float32."""
    bits = x.view(np.uint32).astype(np.int64)
    stored, mantissa = bits >> 23 & 255, bits & (1 << 23) - 1
    bias, top = 2 ** (exp_bits - 1) - 1, 2**exp_bits - 1
    exponent = stored - 127 + bias
    shift = 23 - mant_bits
    if shift > 0:
        kept, cut, half = mantissa >> shift, mantissa & (1 << shift) - 1, 1 << shift - 1
        kept += (cut > half) | ((cut == half) & (kept & 1 == 1))
    else:
        kept = mantissa << -shift
    kept = np.where(exponent > top, 2**mant_bits - 1, kept)
    exponent = np.minimum(exponent, top) - bias
    magnitude = np.ldexp(kept + 2.0**mant_bits, exponent - mant_bits)
    magnitude[(stored == 0) | (stored - 127 + bias < 0)] = 0
    with np.errstate(over="ignore"):
        return np.where((bits >> 31 == 1) & (magnitude != 0), -magnitude, magnitude).astype(np.float32)


def with_ties(x, mant_bits):
    """The values, and the nearest ones that lie halfway between two neighbours of the format."""
    if mant_bits >= 23:
        return x
    shift = 23 - mant_bits
    bits = x.view(np.uint32) >> np.uint32(shift) << np.uint32(shift) | np.uint32(1 << shift - 1)
    return np.concatenate([x, bits.view(np.float32)])


def test_a_mantissa_of_2_bits_has_quarters_and_ties_go_to_the_even_one(bench):
    found = bench.quantize(Minifloat(2, 4), [1.1, 1.125, 1.2, 1.375, 1.625, 1.875, -1.125, -1.375])
    assert found.tolist() == [1, 1, 1.25, 1.5, 1.5, 2, -1, -1.5]


def test_without_a_mantissa_there_are_powers_of_two_and_ties_go_down(bench):
    found = bench.quantize(Minifloat(0, 2), [0.5, 0.75, 0.76, 1, 1.5, 1.51, 3, 3.1, 4, 6, -3, -3.1])
    assert found.tolist() == [0.5, 0.5, 1, 1, 1, 2, 2, 4, 4, 4, -2, -4]


def test_exponent_0_is_an_ordinary_one_and_below_it_is_plus_zero(bench):
    least = 2.0**-7  # of 4 exponent bits: the bias is 7
    found = bench.quantize(Minifloat(3, 4), [least, least * 1.125, least * 0.999, least / 2, -least, -least / 2, -0.0])
    assert found.tolist() == [least, least * 1.125, 0, 0, -least, 0, 0]
    assert np.signbit(found).tolist() == [False, False, False, False, True, False, False]


def test_the_denormals_of_float32_are_zero(bench):
    assert bench.quantize(Minifloat(23, 8), [2.0**-126, -(2.0**-126), 2.0**-127, 1e-45]).tolist() == [
        2.0**-126,
        -(2.0**-126),
        0,
        0,
    ]


def test_a_carry_goes_past_the_top_where_a_larger_value_saturates(bench):
    # mant 2, exp 4 ends at 1.75 * 2^8: there is no order any more above it.
    found = bench.quantize(Minifloat(2, 4), [448, 479, 480, 500, 511.9, 512, 600, 1e30, -500, -600])
    assert found.tolist() == [448, 448, 512, 512, 512, 448, 448, 448, -512, -448]


def test_mant_3_and_exp_4_end_at_480_but_496_becomes_512(bench):
    assert Minifloat(3, 4).largest == 480
    assert bench.quantize(Minifloat(3, 4), [480, 495, 496, 511.9, 512]).tolist() == [480, 480, 512, 512, 480]


def test_infinity_and_nan_saturate_below_8_exponent_bits(bench):
    assert bench.quantize(Minifloat(2, 4), [math.inf, -math.inf, math.nan]).tolist() == [448, -448, 448]


def test_infinity_and_nan_are_infinite_with_8_exponent_bits(bench):
    found = bench.quantize(Minifloat(2, 8), [math.inf, -math.inf, math.nan, 3.4e38, 2.0**127])
    assert found.tolist() == [math.inf, -math.inf, math.inf, math.inf, 2.0**127]


def test_the_largest_number():
    assert Minifloat(2, 4).largest == 448
    assert Minifloat(10, 5).largest == 131008  # 1.9990234375 * 2^16: no code is lost to infinity
    assert Minifloat(0, 2).largest == 4
    assert Minifloat(23, 8).largest == math.inf


def test_23_bits_of_mantissa_and_8_of_exponent_are_float32_itself(bench, many_floats):
    normal = many_floats[np.isfinite(many_floats) & (np.abs(many_floats) >= 2.0**-126)]
    assert bench.quantize(Minifloat(23, 8), normal).tobytes() == normal.tobytes()


@pytest.mark.parametrize(
    ("mant_bits", "exp_bits", "says"),
    [
        (65, 4, "mant_bits 65 is out of range. Use 0 to 64."),
        (-1, 4, "mant_bits -1 is out of range. Use 0 to 64."),
        (2**32 - 1, 4, "mant_bits 4294967295 is out of range. Use 0 to 64."),
        (3, 31, "exp_bits 31 is out of range. Use 0 to 30."),
        (3, -1, "exp_bits -1 is out of range. Use 0 to 30."),
    ],
)
def test_impossible_formats_are_refused(mant_bits, exp_bits, says):
    with pytest.raises(LayerError) as refused:
        Minifloat(mant_bits, exp_bits)
    assert str(refused.value) == says


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_trimming_is_what_the_rule_makes_of_the_bits(bench, number_format, x):
    x = with_ties(x[~np.isnan(x)], number_format.mant_bits)
    x = x[~np.isnan(x)]
    expected = reference(x, number_format.mant_bits, number_format.exp_bits)
    assert bench.quantize(number_format, x).tobytes() == expected.tobytes()


@pytest.mark.parametrize("number_format", FEW_FORMATS, ids=str)
def test_numpy_and_onnxruntime_agree_on_every_bit(bench, many_floats, number_format):
    x = with_ties(many_floats, number_format.mant_bits)
    assert bench.quantize(number_format, x).tobytes() == bench.quantize_in_onnx(number_format, x).tobytes()


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_trimming_again_changes_only_what_was_carried_past_the_top(bench, number_format, x):
    once = bench.quantize(number_format, x)
    again = bench.quantize(number_format, once)
    carried = np.abs(once) > number_format.largest
    assert (again[~carried] == once[~carried]).all()
    assert (again[carried] == np.sign(once[carried]) * np.float32(number_format.largest)).all()


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_trimming_keeps_the_order_of_values_up_to_the_largest(bench, number_format, x):
    found = bench.quantize(number_format, np.sort(x[np.abs(x) <= number_format.largest]))
    assert (found[1:] >= found[:-1]).all()


def test_stochastic_rounding_goes_away_from_zero_as_often_as_the_distance_says(bench):
    for sign in (1, -1):
        found = bench.trim_at_random(Minifloat(2, 4), np.full(100_000, sign * 1.3)) * sign
        assert set(found.tolist()) == {1.25, 1.5}
        assert abs(found.mean() - 1.3) < 0.003  # nine deviations


def test_stochastic_rounding_carries_saturates_and_flushes(bench):
    found = bench.trim_at_random(Minifloat(2, 4), np.full(1000, 480.0))
    assert set(found.tolist()) == {448, 512}
    edges = [600, -1e30, math.inf, 1e-9, -1e-9, 0]
    assert bench.trim_at_random(Minifloat(2, 4), edges).tolist() == [448, -448, 448, 0, 0, 0]


@pytest.mark.parametrize("number_format", FEW_FORMATS, ids=str)
def test_stochastic_rounding_never_moves_a_value_of_the_format(bench, many_floats, number_format):
    values = bench.quantize(number_format, many_floats)
    values = values[np.isfinite(values) & (np.abs(values) <= number_format.largest)]
    found = bench.trim_at_random(number_format, values)
    np.testing.assert_array_equal(found, values)


def test_stochastic_rounding_stays_between_the_neighbours(bench, many_floats):
    x = many_floats[np.abs(many_floats) < 448]
    found = bench.trim_at_random(Minifloat(2, 4), x)
    grid = np.concatenate([[0], np.outer(2.0 ** np.arange(-7, 9), [1, 1.25, 1.5, 1.75]).ravel()])
    below = grid[np.searchsorted(grid, np.abs(x), side="right") - 1]
    above = grid[np.minimum(np.searchsorted(grid, np.abs(x), side="left"), len(grid) - 1)]
    above[np.abs(x) < 2.0**-7] = 0
    assert ((np.abs(found) == below) | (np.abs(found) == above)).all()


def test_stochastic_rounding_in_onnxruntime_is_unbiased_too(bench):
    found = bench.quantize_in_onnx(Minifloat(2, 4), np.full(100_000, 1.3), Rounding.STOCHASTIC)
    assert set(found.tolist()) == {1.25, 1.5}
    assert abs(found.mean() - 1.3) < 0.003
