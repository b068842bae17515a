"""Fixed: dynamic fixed point, value by value."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ristretto_cli.errors import LayerError
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.number_format import Rounding

BIT_PATTERNS = arrays(np.uint32, 64).map(lambda bits: bits.view(np.float32))
FORMATS = st.builds(Fixed, st.integers(1, 24), st.integers(-30, 60))
FEW_FORMATS = [
    Fixed(8, 4),
    Fixed(8, -2),
    Fixed(4, 10),
    Fixed(1, 3),
    Fixed(16, 20),
    Fixed(32, 16),
    Fixed(2, 150),
]


def test_a_value_goes_to_the_nearest_multiple_of_the_step_and_ties_go_to_the_even_one(bench):
    sixteenths = [0.4, 0.5, 0.6, 1.5, 2.5, 3.5, -0.6, -1.5, -2.5]
    assert (bench.quantize(Fixed(8, 4), np.array(sixteenths) / 16) * 16).tolist() == [
        0,
        0,
        1,
        2,
        2,
        4,
        -1,
        -2,
        -2,
    ]


def test_8_bits_with_4_fractional_end_at_minus_8_and_7_and_15_sixteenths(bench):
    found = bench.quantize(Fixed(8, 4), [7.9, 7.9375, 7.97, 8, 1e30, -7.99, -8, -8.1, -1e30])
    assert found.tolist() == [7.875, 7.9375, 7.9375, 7.9375, 7.9375, -8, -8, -8, -8]


def test_infinity_saturates_and_nan_becomes_the_largest_number(bench):
    assert bench.quantize(Fixed(8, 4), [math.inf, -math.inf, math.nan]).tolist() == [7.9375, -8, 7.9375]


def test_a_negative_fractional_length_gives_steps_above_one(bench):
    found = bench.quantize(Fixed(8, -2), [1.9, 2, 6, 10, 1000, -1000])
    assert found.tolist() == [0, 0, 8, 8, 508, -512]  # multiples of 4; 6 and 10 are ties


def test_the_fractional_length_may_exceed_the_width(bench):
    found = bench.quantize(Fixed(4, 10), [3.2 / 1024, 1, -1])
    assert found.tolist() == [3 / 1024, 7 / 1024, -8 / 1024]


def test_one_bit_holds_zero_and_one_step_below_it(bench):
    found = bench.quantize(Fixed(1, 3), [5, 0.01, -0.0625, -0.07, -5, math.nan])
    assert found.tolist() == [0, 0, 0, -0.125, -0.125, 0]  # -0.0625 is a tie


def test_minus_zero_stays_and_small_negative_values_become_it(bench):
    found = bench.quantize(Fixed(8, 4), [-0.0, -0.01, 0.0, 0.01])
    assert found.tolist() == [0, 0, 0, 0]
    assert np.signbit(found).tolist() == [True, True, False, False]


def test_the_default_of_32_bits_with_16_fractional_ends_at_32768(bench):
    assert bench.quantize(Fixed(32, 16), [1e5, -1e5, 1.5, 2.0**-17]).tolist() == [32768, -32768, 1.5, 0]


def test_the_largest_number():
    assert Fixed(8, 4).largest == 7.9375
    assert Fixed(8, -2).largest == 508
    assert Fixed(4, 10).largest == 7 / 1024
    assert Fixed(1, 5).largest == 0


@pytest.mark.parametrize(
    ("frac_bits", "expected"),
    [
        (2**31 - 1, [0, 0, 0, 0]),  # the largest number of the format is far below the least float32
        (-(2**31), [0, 0, 0, math.inf]),  # one step is far above the largest float32
        (-2147483632, [0, 0, 0, math.inf]),  # what legacy writes for a dead input
    ],
)
def test_absurd_fractional_lengths_do_no_harm(bench, frac_bits, expected):
    found = bench.quantize(Fixed(16, frac_bits), [0, 1, -3e38, math.inf])
    assert found.tolist() == expected
    assert bench.quantize_in_onnx(Fixed(16, frac_bits), [0, 1, -3e38, math.inf]).tolist() == expected


@pytest.mark.parametrize("bits", [0, -1, 129, 2**32 - 1])
def test_impossible_widths_are_refused(bits):
    with pytest.raises(LayerError, match=f"a width of {bits} bits is out of range. Use 1 to 128."):
        Fixed(bits, 4)


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_trimming_what_is_trimmed_changes_nothing(bench, number_format, x):
    once = bench.quantize(number_format, x)
    assert once.tobytes() == bench.quantize(number_format, once).tobytes()


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_results_are_the_nearest_integers_times_the_step(bench, number_format, x):
    # The rule in float64, where scaling by such powers of two is exact; saturation first, as it is written.
    step = 2.0**-number_format.frac_bits
    low, high = -(2.0 ** (number_format.bits - 1)) * step, (2.0 ** (number_format.bits - 1) - 1) * step
    with np.errstate(invalid="ignore"):  # signaling NaN
        exact = x.astype(np.float64)
    wide = np.where(np.isnan(x), high, np.nan_to_num(exact, nan=0, posinf=np.inf, neginf=-np.inf))
    integers = np.rint(np.clip(wide, low, high) / step)
    np.testing.assert_array_equal(bench.quantize(number_format, x), integers * step)


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_trimming_keeps_the_order_of_values(bench, number_format, x):
    found = bench.quantize(number_format, np.sort(x[~np.isnan(x)]))
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("number_format", FEW_FORMATS, ids=str)
def test_numpy_and_onnxruntime_agree_on_every_bit_but_the_sign_of_zero(bench, many_floats, number_format):
    np.testing.assert_array_equal(
        bench.quantize(number_format, many_floats), bench.quantize_in_onnx(number_format, many_floats)
    )


def test_stochastic_rounding_goes_up_as_often_as_the_distance_says(bench):
    found = bench.trim_at_random(Fixed(8, 4), np.full(100_000, 2.25 / 16)) * 16
    assert set(found.tolist()) == {2, 3}
    assert abs(found.mean() - 2.25) < 0.01  # seven deviations
    found = bench.trim_at_random(Fixed(8, 4), np.full(100_000, -2.25 / 16)) * 16
    assert set(found.tolist()) == {-3, -2}
    assert abs(found.mean() + 2.25) < 0.01


@pytest.mark.parametrize("number_format", [Fixed(8, 4), Fixed(16, 8), Fixed(32, 16)], ids=str)
def test_stochastic_rounding_never_moves_a_value_of_the_format(bench, number_format):
    integers = np.random.default_rng(1).integers(-(2**15), 2**15, 200_000)
    values = bench.quantize(number_format, integers * 2.0**-number_format.frac_bits * 200)
    np.testing.assert_array_equal(bench.trim_at_random(number_format, values), values)


def test_stochastic_rounding_saturates(bench):
    assert bench.trim_at_random(Fixed(8, 4), [100, -100, math.inf]).tolist() == [7.9375, -8, 7.9375]


def test_stochastic_rounding_follows_the_given_generator(bench):
    x = np.linspace(-5, 5, 1000)
    first, again, other = (bench.trim_at_random(Fixed(8, 4), x, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_stochastic_rounding_in_onnxruntime_is_unbiased_too(bench):
    found = bench.quantize_in_onnx(Fixed(8, 4), np.full(100_000, 2.25 / 16), Rounding.STOCHASTIC) * 16
    assert set(found.tolist()) == {2, 3}
    assert abs(found.mean() - 2.25) < 0.01
    on_grid = np.arange(-128, 128) / 16
    assert bench.quantize_in_onnx(Fixed(8, 4), on_grid, Rounding.STOCHASTIC).tolist() == on_grid.tolist()
