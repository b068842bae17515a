"""PowerOfTwo, value by value."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ristretto_cli.errors import LayerError
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.formats.power_of_two import PowerOfTwo

BIT_PATTERNS = arrays(np.uint32, 64).map(lambda bits: bits.view(np.float32))
FORMATS = st.builds(PowerOfTwo, st.integers(-130, 130), st.integers(-130, 130))


def test_a_weight_goes_to_the_nearest_power_of_two_on_the_logarithmic_scale(bench):
    # log2: -1.74, -1.47, -2.32, -2.74
    found = bench.quantize(PowerOfTwo(-8, -1), [0.3, 0.36, 0.2, -0.15])
    assert found.tolist() == [0.25, 0.5, 0.25, -0.125]
    assert bench.quantize(PowerOfTwo(0, 3), [3, 5, 6, -7]).tolist() == [
        4,
        4,
        8,
        -8,
    ]  # log2: 1.58, 2.32, 2.58, 2.81


def test_a_logarithm_halfway_in_float32_goes_to_the_even_exponent(bench):
    halfway = np.float32(2.0**-1.5)  # 0.35355338, whose logarithm is -1.5 in float32
    assert bench.quantize(PowerOfTwo(-8, -1), [halfway, -halfway]).tolist() == [0.25, -0.25]
    halfway = np.float32(2.0**-2.5)
    assert bench.quantize(PowerOfTwo(-8, -1), [halfway, -halfway]).tolist() == [0.25, -0.25]


def test_exponents_are_clamped_at_both_ends(bench):
    found = bench.quantize(PowerOfTwo(-8, -1), [100, 1, -1, math.inf, -math.inf, 1e-9, -1e-9, 1e-40])
    assert found.tolist() == [0.5, 0.5, -0.5, 0.5, -0.5, 2**-8, -(2**-8), 2**-8]


def test_there_is_no_zero(bench):
    assert bench.quantize(PowerOfTwo(-8, -1), [0.0, -0.0]).tolist() == [2**-8, 2**-8]


def test_nan_becomes_the_lowest_number(bench):
    assert bench.quantize(PowerOfTwo(-8, -1), [math.nan]).tolist() == [-0.5]


def test_only_exp_min_counts_where_it_is_the_larger(bench):
    assert bench.quantize(PowerOfTwo(-1, -4), [0.001, 0.1, 3, -3, 0]).tolist() == [0.5, 0.5, 0.5, -0.5, 0.5]


def test_every_power_of_two_that_float32_has_is_exact(bench):
    for exponent in range(-126, 128):
        assert bench.quantize(PowerOfTwo(exponent, exponent), [1.0]).tolist() == [2.0**exponent]
    powers = (2.0 ** np.arange(-126, 128)).astype(np.float32)
    assert (bench.quantize(PowerOfTwo(-126, 127), powers) == powers).all()
    assert (bench.quantize_in_onnx(PowerOfTwo(-126, 127), powers) == powers).all()


def test_exponents_beyond_float32_give_zero_and_infinity(bench):
    assert bench.quantize(PowerOfTwo(-1000, -200), [1, -1]).tolist() == [0, 0]
    assert bench.quantize(PowerOfTwo(200, 1000), [1, -1]).tolist() == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ((-1001, -1), "exp_min -1001 is out of range. Use -1000 to 1000."),
        ((-8, 2**31 - 1), "exp_max 2147483647 is out of range. Use -1000 to 1000."),
    ],
)
def test_absurd_exponents_are_refused(ends, says):
    with pytest.raises(LayerError) as refused:
        PowerOfTwo(*ends)
    assert str(refused.value) == says


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_results_are_powers_of_two_within_the_exponents(bench, number_format, x):
    found = bench.quantize(number_format, x)
    low, high = number_format.exp_min, max(number_format.exp_min, number_format.exp_max)
    with np.errstate(over="ignore"):
        allowed = np.float32(2.0) ** np.arange(low, high + 1).astype(np.float32)
    assert np.isin(np.abs(found), allowed).all()
    assert ((x >= 0) == ~np.signbit(found)).all()


@settings(deadline=None)
@given(exp_min=st.integers(-126, 127), exp_max=st.integers(-126, 127), x=BIT_PATTERNS)
def test_trimming_what_is_trimmed_changes_nothing(bench, exp_min, exp_max, x):
    number_format = PowerOfTwo(exp_min, exp_max)
    once = bench.quantize(number_format, x)
    assert once.tobytes() == bench.quantize(number_format, once).tobytes()


@settings(deadline=None)
@given(number_format=FORMATS, x=BIT_PATTERNS)
def test_trimming_keeps_the_order_of_values(bench, number_format, x):
    found = bench.quantize(number_format, np.sort(x[~np.isnan(x)]))
    assert (found[1:] >= found[:-1]).all()


@pytest.mark.parametrize("ends", [(-8, -1), (-4, 0), (-1, -4), (-126, 127)])
def test_numpy_and_onnxruntime_agree_on_every_bit(bench, many_floats, ends):
    number_format = PowerOfTwo(*ends)
    assert (
        bench.quantize(number_format, many_floats).tobytes()
        == bench.quantize_in_onnx(number_format, many_floats).tobytes()
    )


def test_stochastic_rounding_picks_the_exponent_by_the_distance_of_the_logarithm(bench):
    found = bench.trim_at_random(PowerOfTwo(-8, -1), np.full(100_000, -(2.0**-2.25)))
    assert set(found.tolist()) == {-0.125, -0.25}
    assert abs(np.log2(-found).mean() + 2.25) < 0.01  # seven deviations
    found = bench.quantize_in_onnx(PowerOfTwo(-8, -1), np.full(100_000, -(2.0**-2.25)), Rounding.STOCHASTIC)
    assert set(found.tolist()) == {-0.125, -0.25}


def test_stochastic_rounding_never_moves_a_power_of_two(bench):
    values = np.repeat([2.0**-8, 2.0**-3, -0.5, -(2.0**-8)], 10_000)
    assert (bench.trim_at_random(PowerOfTwo(-8, -1), values) == values).all()
