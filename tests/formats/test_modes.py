"""Trimming modes: formats from ranges into a QuantizationParameter, and back."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.formats.fixed import Fixed, integer_length
from ristretto_cli.formats.minifloat import Minifloat, exponent_bits, unsaturated_exponent_bits
from ristretto_cli.formats.number_format import (
    HEADROOM,
    MODES,
    Ranges,
    Role,
    Rounding,
    Sample,
    configured_mode,
    layer_formats,
    mode_options,
    set_precision,
    trimming_mode,
)
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.ops import Grid

ALL_ROLES = (Role.LAYER_IN, Role.LAYER_OUT, Role.PARAMS)
RANGES = Ranges(layer_in=200.0, layer_out=6.5, params=0.4)


def written(mode, bits, ranges=RANGES, *, roles=ALL_ROLES, everywhere=None, legacy=False, **options):
    """The QuantizationParameter that a mode writes for these widths; options: the mode's own."""
    quantization = new("QuantizationParameter")
    widths = dict.fromkeys(roles, bits)
    set_precision(quantization, MODES.get(mode))
    configured_mode(mode, options).write(quantization, widths, ranges, everywhere=everywhere or [ranges], legacy=legacy)
    return quantization


def read(text):
    """The LayerFormats of a QuantizationParameter written as text."""
    return layer_formats(parse(text, "QuantizationParameter", "q").message)


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new_name"),
    [
        ("fixed_point", "dynamic_fixed_point"),
        ("mini_floating_point", "minifloat"),
        ("power_of_2_weights", "integer_power_of_2_weights"),
    ],
)
def test_the_old_names_of_the_modes_are_known(old, new_name):
    assert MODES.get(old) is MODES.get(new_name)


def test_configured_mode_has_its_options_and_leaves_the_registered_one_unchanged():
    assert configured_mode("fixed_point", {"fl_params": "mse"}).option("fl_params") == "mse"
    assert configured_mode("fixed_point", {}).option("fl_params") == "max"
    assert MODES.get("fixed_point").option("fl_params") == "max"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fl_params": "min"}, 'invalid value "min" of fl_params. Use max or mse.'),
        (
            {"fl_param": "mse"},
            'trimming mode "dynamic_fixed_point" has no option fl_param. Did you mean fl_params?',
        ),
        (
            {"colour": "red"},
            'trimming mode "dynamic_fixed_point" has no option colour. Options: fl_params, fl_layer, unsigned, '
            "same_formats.",
        ),
    ],
)
def test_configured_mode_refuses_unknown_options_and_values(options, message):
    with pytest.raises(RistrettoError) as refused:
        configured_mode("dynamic_fixed_point", options)
    assert str(refused.value) == message


def test_modes_may_have_an_option_in_common(monkeypatch):
    having = mode_options()["fl_params"][1]
    assert "dynamic_fixed_point" in having
    own = MODES.get("dynamic_fixed_point").options
    monkeypatch.setattr(type(MODES.get("minifloat")), "options", own)
    assert mode_options()["fl_params"][1] == sorted([*having, "minifloat"])


def test_mode_options_of_one_name_must_be_equal():
    class Other(type(MODES.get("minifloat"))):
        options = (replace(MODES.get("dynamic_fixed_point").options[0], default="mse"),)

    with pytest.raises(ValueError, match="dynamic_fixed_point and other declare option fl_params differently"):
        trimming_mode("other")(Other)
    assert "other" not in MODES


def test_modes_of_one_precision_must_read_it_alike():
    class Other(type(MODES.get("minifloat"))):
        def layer_formats(self, quantization):
            return MODES.get("dynamic_fixed_point").layer_formats(quantization)

    with pytest.raises(ValueError, match="minifloat and other interpret precision MINIFLOAT differently"):
        trimming_mode("other")(Other)
    assert "other" not in MODES


def test_an_unknown_mode_is_answered_with_the_nearest():
    with pytest.raises(RistrettoError) as refused:
        MODES.get("minifloats")
    assert str(refused.value) == 'unknown trimming mode "minifloats". Did you mean minifloat?'


# -- reading -------------------------------------------------------------------------------------------------


def test_an_empty_quantization_param_is_32_bits_with_16_fractional():
    formats = read("")
    both = Fixed(32, 16)
    assert (formats.layer_in, formats.layer_out, formats.weights, formats.bias) == (both, both, both, both)
    assert formats.rounding is Rounding.NEAREST


def test_fixed_point_has_a_format_each_and_trims_the_bias_as_the_weights():
    formats = read("bw_layer_in: 8 fl_layer_in: 4 bw_layer_out: 7 fl_layer_out: -3 bw_params: 4 fl_params: 9")
    assert formats.layer_in == Fixed(8, 4)
    assert formats.layer_out == Fixed(7, -3)
    assert formats.weights == formats.bias == Fixed(4, 9)


def test_minifloat_has_one_format_for_all():
    formats = read("precision: MINIFLOAT mant_bits: 10 exp_bits: 5")
    assert formats.layer_in == formats.layer_out == formats.weights == formats.bias == Minifloat(10, 5)
    assert read("precision: MINIFLOAT").weights == Minifloat(23, 8)


def test_powers_of_two_leave_the_bias_unchanged_and_have_activations_in_fixed_point():
    formats = read("precision: INTEGER_POWER_OF_2_WEIGHTS bw_layer_in: 8 fl_layer_in: 2 exp_min: -6")
    assert formats.weights == PowerOfTwo(-6, -1)
    assert formats.bias is None
    assert (formats.layer_in, formats.layer_out) == (Fixed(8, 2), Fixed(32, 16))


@pytest.mark.parametrize("precision", ["DYNAMIC_FIXED_POINT", "MINIFLOAT", "INTEGER_POWER_OF_2_WEIGHTS"])
def test_the_rounding_scheme_is_read_in_every_mode(precision):
    assert read(f"precision: {precision} rounding_scheme: STOCHASTIC").rounding is Rounding.STOCHASTIC
    assert read(f"precision: {precision} rounding_scheme: NEAREST").rounding is Rounding.NEAREST


@pytest.mark.parametrize("field", ["bw_layer_in", "bw_layer_out", "bw_params"])
def test_a_width_of_0_bits_is_refused(field):
    with pytest.raises(LayerError, match="a width of 0 bits is out of range"):
        read(f"{field}: 0")


# -- fixed point ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("largest", "activations", "params"),
    [(6.5, 3, 4), (4.0, 2, 3), (4.1, 3, 4), (1.0, 0, 1), (0.3, -1, 0), (0.25, -2, -1), (1085.0, 11, 12)],
)
def test_integer_lengths_keep_all_of_parameters_and_the_lower_half_of_activations(largest, activations, params):
    assert integer_length(largest, Role.LAYER_IN) == activations
    assert integer_length(largest, Role.LAYER_OUT) == activations
    assert integer_length(largest, Role.PARAMS) == params


@pytest.mark.parametrize("role", ALL_ROLES)
def test_a_range_of_zero_has_the_integer_length_of_the_original(role):
    assert integer_length(0.0, role) == -2147483648


@pytest.mark.parametrize("legacy", [False, True])
def test_fractional_lengths_are_what_the_integer_length_leaves(legacy):
    found = written("dynamic_fixed_point", 8, legacy=legacy)
    # 200 has 8 integer bits, 6.5 has 3, both without their top half; 0.4 has 0, with all of its range.
    assert (found.fl_layer_in, found.fl_layer_out, found.fl_params) == (0, 5, 8)
    assert (found.bw_layer_in, found.bw_layer_out, found.bw_params) == (8, 8, 8)
    assert not found.HasField("precision")


def test_roles_without_a_width_keep_the_defaults():
    found = written("dynamic_fixed_point", 4, roles=[Role.PARAMS])
    assert (found.bw_params, found.fl_params) == (4, 4)
    assert [field.name for field, _ in found.ListFields()] == ["bw_params", "fl_params"]


@pytest.mark.parametrize(("bits", "frac_bits"), [(16, -2147483632), (8, -2147483640), (1, -2147483647)])
def test_legacy_wraps_around_for_a_range_of_zero(bits, frac_bits):
    found = written("dynamic_fixed_point", bits, Ranges(0.0, 0.0, 0.0), legacy=True)
    assert (found.fl_layer_in, found.fl_layer_out, found.fl_params) == (frac_bits,) * 3


def test_a_range_of_zero_is_taken_for_one_otherwise():
    found = written("dynamic_fixed_point", 8, Ranges(0.0, 0.0, 0.0))
    assert (found.fl_layer_in, found.fl_layer_out, found.fl_params) == (8, 8, 7)


@pytest.mark.parametrize(("bits", "legacy"), [(16, True), (15, False), (8, False), (4, False), (2, False), (1, False)])
def test_what_is_written_in_fixed_point_is_read_back(bits, legacy):
    formats = layer_formats(written("dynamic_fixed_point", bits, legacy=legacy))
    assert formats.layer_in == Fixed(bits, bits - 8)
    assert formats.layer_out == Fixed(bits, bits - 3)
    assert formats.weights == formats.bias == Fixed(bits, bits)


@pytest.mark.parametrize(
    ("largest", "frac_bits"),
    [
        # One and a half times the range must round to 32767 steps at most.
        (200.0, 6),  # 300 of at most 511.98
        (6.5, 11),
        (255.0, 6),
        (1.0, 14),
        (1.3333, 14),
        (4 / 3 - 2**-18, 13),  # 2 - 1.5 * 2^-18: half a step of 2^-14 below 2 would still do, this is closer to it
        (4 / 3 - 2**-15, 14),  # 2 - 1.5 * 2^-15 is farther from it
        (4 / 3, 13),
        (2.0, 13),
        (0.0, 14),  # as if it were 1
        (2.0**-149, 163),
        (3.4e38, -114),
    ],
)
def test_activations_of_16_bits_hold_half_as_much_again_as_their_range(largest, frac_bits):
    found = written("dynamic_fixed_point", 16, Ranges(layer_in=largest, layer_out=largest, params=0.4))
    assert (found.fl_layer_in, found.fl_layer_out, found.fl_params) == (frac_bits, frac_bits, 16)


@pytest.mark.parametrize(("bits", "frac_bits"), [(15, 7), (16, 6), (17, 7), (31, 21)])
def test_activations_hold_their_range_from_16_bits_on(bits, frac_bits):
    assert written("dynamic_fixed_point", bits).fl_layer_in == frac_bits


@settings(deadline=None)
@given(
    bits=st.integers(16, 32),
    largest=st.floats(2.0**-149, 2.0**127, width=32),
    fraction=st.floats(-1, 1, width=32),
)
def test_no_activation_within_its_range_saturates_from_16_bits_on(bench, bits, largest, fraction):
    number_format = layer_formats(written("dynamic_fixed_point", bits, Ranges(largest, largest, 1.0))).layer_in
    half_a_step = Fraction(2) ** -(number_format.frac_bits + 1)
    for value in np.float32([largest, -largest, np.float32(largest) * np.float32(fraction)]):
        (found,) = bench.quantize(number_format, [value])
        assert abs(Fraction(float(found)) - Fraction(float(value))) <= half_a_step


@given(bits=st.integers(16, 31), largest=st.floats(2.0**-149, 2.0**127, width=32))
def test_no_finer_steps_leave_the_headroom(bits, largest):
    frac_bits = written("dynamic_fixed_point", bits, Ranges(largest, largest, 1.0)).fl_layer_out
    steps = Fraction(HEADROOM) * Fraction(largest) * Fraction(2) ** frac_bits
    beyond = 2 ** (bits - 1) - Fraction(1, 2)  # from here on values round to more steps than the format has
    assert steps < beyond <= 2 * steps


def test_a_bias_beyond_the_range_of_the_weights_is_kept_at_16_bit(bench):
    ranges = Ranges(1.0, 1.0, params=0.4, biases=(-0.864, 0.1), input_energy=100.0)
    (bias,) = bench.quantize(layer_formats(written("dynamic_fixed_point", 16, ranges)).bias, [-0.864])
    assert abs(bias + 0.864) < 2**-15
    # With the format that the original writes, it saturates.
    legacy = written("dynamic_fixed_point", 16, ranges, legacy=True)
    assert bench.quantize(layer_formats(legacy).bias, [-0.864]).tolist() == [-0.5]


def test_a_bias_within_the_range_of_the_weights_costs_no_bit():
    for bits in (16, 8, 4, 2, 1):
        without = written("dynamic_fixed_point", bits).fl_params
        ranges = Ranges(200.0, 6.5, params=0.4, biases=(0.3, -0.2), input_energy=3.0)
        assert written("dynamic_fixed_point", bits, ranges).fl_params == without


def test_with_the_weights_their_squared_error_decides():
    # In halves 0.9 loses 0.4 and eight times 0.3 gain 0.2: 0.48 in all. In quarters up to 0.25: 0.65 and 0.05, 0.4425.
    weights = np.array([0.9] + [0.3] * 8, np.float32)
    assert written("dynamic_fixed_point", 2, Ranges(1.0, 1.0, params=0.9)).fl_params == 1
    assert (
        written("dynamic_fixed_point", 2, Ranges(1.0, 1.0, params=0.9, weights=weights), fl_params="mse").fl_params == 2
    )
    # A bias of 0.5 loses 0.25 in quarters, which counts as much as an error of the weights with an energy of 15.
    for energy, fl_params in ((14.0, 1), (16.0, 2)):
        ranges = Ranges(1.0, 1.0, params=0.9, biases=(0.5,), input_energy=energy, weights=weights)
        assert written("dynamic_fixed_point", 2, ranges, fl_params="mse").fl_params == fl_params


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_least_squared_error_is_that_of_no_other_fractional_length(bits, bench):
    weights = np.random.default_rng(bits).laplace(scale=0.1, size=1000).astype(np.float32)

    def error(frac_bits):
        return np.square(bench.quantize(Fixed(bits, frac_bits), weights) - weights).mean()

    ranges = Ranges(1.0, 1.0, params=float(abs(weights).max()), weights=weights)
    chosen = written("dynamic_fixed_point", bits, ranges, fl_params="mse").fl_params
    assert error(chosen) == min(map(error, range(-5, 25)))


def test_of_very_many_weights_those_looked_at_are_of_all_rows_and_places():
    """With one of 3, 6 or 9 looked at, only small weights of these kernels would be seen."""
    kernels = np.full((2**15, 2, 6, 6), 0.3, np.float32)
    kernels[:, :, ::3, ::3] = 0.001
    ranges = Ranges(1.0, 1.0, params=0.3, weights=kernels)
    assert (
        written("dynamic_fixed_point", 4, ranges, fl_params="mse").fl_params == 4
    )  # 0.3 is 5 sixteenths; 0.001 asks for 13


@pytest.mark.parametrize("weights", [np.zeros(3, np.float32), np.zeros(0, np.float32), np.full(3, 1e-30, np.float32)])
def test_weights_of_no_size_have_a_format_too(weights):
    ranges = Ranges(1.0, 1.0, params=float(weights.max(initial=0.0)), weights=weights)
    assert written("dynamic_fixed_point", 8, ranges, fl_params="mse").bw_params == 8


def test_at_a_low_width_fine_weights_win_over_a_whole_bias():
    # 2 bits for 0.4: steps of 1/4 with an error of 1/16/12 * 101 = 0.53 per output, and for the bias one of
    # (0.864 - 1/4)^2 = 0.38; one integer bit more: steps of 1/2, errors of 2.1 and 0.13.
    ranges = Ranges(1.0, 1.0, params=0.4, biases=(-0.864,), input_energy=100.0)
    assert written("dynamic_fixed_point", 2, ranges).fl_params == 2


def test_at_a_low_width_a_whole_bias_wins_over_fine_weights_that_hardly_count():
    # Inputs of energy 1: errors of 1/16/12 * 2 = 0.01 and 0.38 against 0.04 and 0.13, and with a second bit
    # more, 1/12 * 2 = 0.17 and 0.
    ranges = Ranges(1.0, 1.0, params=0.4, biases=(0.864,), input_energy=1.0)
    assert written("dynamic_fixed_point", 2, ranges).fl_params == 1


def test_32_bits_keep_values_up_to_eight_times_the_range(bench):
    formats = layer_formats(written("dynamic_fixed_point", 32))
    for number_format, largest in [(formats.layer_in, 200.0), (formats.layer_out, 6.5), (formats.weights, 0.4)]:
        values = [8 * largest, -8 * largest, largest, largest / 3]
        assert bench.quantize(number_format, values).tolist() == pytest.approx(values, rel=2**-22)


def test_32_bits_keep_a_bias_far_beyond_the_range_of_the_weights(bench):
    ranges = Ranges(1.0, 1.0, params=0.01, biases=(5.0, -700.0), input_energy=10.0)
    formats = layer_formats(written("dynamic_fixed_point", 32, ranges))
    # 700 takes 11 integer bits with the sign, which leaves steps of 2^-21.
    assert formats.bias == Fixed(32, 21)
    assert bench.quantize(formats.bias, [5.0, -700.0]).tolist() == [5, -700]


def test_legacy_32_bits_still_saturate_activations(bench):
    formats = layer_formats(written("dynamic_fixed_point", 32, legacy=True))
    assert bench.quantize(formats.layer_in, [200.0]).tolist() == [128]


def test_fixed_point_tries_all_widths_that_are_offered_largest_first():
    assert MODES.get("dynamic_fixed_point").widths([4, 16, 8], [RANGES]) == [16, 8, 4]


@pytest.mark.parametrize(
    ("largest", "frac_bits"),
    # 127 steps must not be exceeded by half a step or more, and -128 is no help: the sign is not known.
    [(200.0, -1), (127.4, 0), (127.5, -1), (1.0, 6), (0.99, 7), (0.997, 6), (0.0, 6)],
)
def test_the_range_rule_fits_the_whole_range(largest, frac_bits):
    found = written("dynamic_fixed_point", 8, Ranges(largest, largest, 1.0), fl_layer="range")
    assert (found.fl_layer_in, found.fl_layer_out) == (frac_bits, frac_bits)


@settings(deadline=None)
@given(bits=st.integers(2, 15), largest=st.floats(2.0**-100, 2.0**100, width=32))
def test_nothing_in_its_range_saturates_by_the_range_rule(bench, bits, largest):
    number_format = layer_formats(
        written("dynamic_fixed_point", bits, Ranges(largest, largest, 1.0), fl_layer="range")
    ).layer_in
    found = bench.quantize(number_format, [largest, -largest]).astype(np.float64)
    assert abs(found - [largest, -largest]).max() <= math.ldexp(0.5, -number_format.frac_bits)


@pytest.mark.parametrize(("bits", "frac_bits"), [(8, 0), (16, 8), (31, 23)])
def test_the_original_rule_saturates_the_top_half_at_every_width(bits, frac_bits):
    assert written("dynamic_fixed_point", bits, fl_layer="original").fl_layer_in == frac_bits


@pytest.mark.parametrize("rule", ["range", "mse", "auto"])
def test_from_16_bits_on_the_other_rules_leave_headroom(rule):
    ranges = replace(RANGES, samples=samples([200.0], [0.01]))
    assert written("dynamic_fixed_point", 16, ranges, fl_layer=rule).fl_layer_in == 6


@pytest.mark.parametrize("rule", ["original", "range", "mse", "auto"])
def test_32_bits_are_lossless_by_every_rule(rule, bench):
    formats = layer_formats(written("dynamic_fixed_point", 32, fl_layer=rule))
    assert bench.quantize(formats.layer_in, [1600.0]).tolist() == [1600]


def samples(values, weights):
    found = Sample(np.array(values, np.float32), np.array(weights, np.float32))
    return {Role.LAYER_IN: found, Role.LAYER_OUT: found}


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8, 12])
@pytest.mark.parametrize("shape", ["laplace", "normal", "rectified", "whole numbers"])
def test_the_mse_rule_has_the_least_weighted_error_of_all(bits, shape, bench):
    rng = np.random.default_rng(bits)
    values = {
        "laplace": rng.laplace(scale=3, size=2000),
        "normal": rng.normal(size=2000),
        "rectified": np.maximum(rng.normal(size=2000), 0) * 100,
        "whole numbers": rng.integers(-100, 156, 2000),
    }[shape].astype(np.float32)
    weights = rng.uniform(0.1, 10, 2000).astype(np.float32)
    ranges = Ranges(abs(values).max(), abs(values).max(), 1.0, samples=samples(values, weights))

    def error(frac_bits):
        found = bench.quantize(Fixed(bits, frac_bits), values).astype(np.float64)
        return float((np.square(found - values) * weights).sum())

    chosen = written("dynamic_fixed_point", bits, ranges, fl_layer="mse").fl_layer_in
    assert error(chosen) == min(map(error, range(-12, 20)))


def test_weights_of_a_sample_decide_between_precision_and_range():
    # 3 bits. In halves, 3 becomes 1.5 (error 2.25) and 0.5 is kept; in ones, 3 is kept and 0.5 becomes 0 (0.25).
    for weight_of_small, frac_bits in ((8.9, 0), (9.1, 1)):
        ranges = Ranges(3.0, 3.0, 1.0, samples=samples([3.0, 0.5], [1.0, weight_of_small]))
        assert written("dynamic_fixed_point", 3, ranges, fl_layer="mse").fl_layer_out == frac_bits


@pytest.mark.parametrize(
    ("weight_of_small", "mse", "auto"),
    # 3 bits for up to 3: ones up to 3; the original's halves, up to 1.5; quarters, up to 0.75. The errors of 3 are 0,
    # 2.25 and 5.0625, and those of 0.7 are 0.09, 0.04 and 0.0025, so quarters are better than halves for weights above
    # 75, and by a fifth above 110.6. Ones are better below 45, and by three fifths below 12.1.
    [(12.0, 0, 0), (12.5, 0, 1), (44.0, 0, 1), (46.0, 1, 1), (90.0, 2, 1), (110.0, 2, 1), (111.0, 2, 2)],
)
def test_auto_leaves_the_format_of_the_original_only_for_a_clear_gain(weight_of_small, mse, auto):
    ranges = Ranges(3.0, 3.0, 1.0, samples=samples([3.0, 0.7], [1.0, weight_of_small]))
    assert written("dynamic_fixed_point", 3, ranges, fl_layer="mse").fl_layer_in == mse
    assert written("dynamic_fixed_point", 3, ranges, fl_layer="auto").fl_layer_in == auto


@pytest.mark.parametrize("rule", ["mse", "auto"])
@pytest.mark.parametrize("found", [{}, {Role.LAYER_IN: Sample(np.zeros(0, np.float32), np.zeros(0, np.float32))}])
def test_without_a_sample_the_original_rule_applies(rule, found):
    assert written("dynamic_fixed_point", 8, replace(RANGES, samples=found), fl_layer=rule).fl_layer_in == 0


@pytest.mark.parametrize("largest", [2.0**-149, 1e-30, 3e38])
def test_tiny_and_huge_activations_have_a_format(largest):
    ranges = Ranges(largest, largest, 1.0, samples=samples([largest, largest / 2], [1.0, 1.0]))
    found = layer_formats(written("dynamic_fixed_point", 8, ranges)).layer_in
    assert found.largest >= largest / 4


def test_only_some_rules_need_samples():
    mode = "dynamic_fixed_point"
    needed = {rule: configured_mode(mode, {"fl_layer": rule}).needs_samples() for rule in ("original", "range", "mse")}
    assert needed == {"original": False, "range": False, "mse": True}
    assert configured_mode(mode, {}).needs_samples()
    assert not MODES.get("minifloat").needs_samples()


# -- minifloat -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("largest", "bits"),
    # 2^8 is the largest exponent of 4 bits; the rule's steps are at 2^(2^k + 1).
    [
        (0.0, 4),
        (0.5, 4),
        (1.9, 4),
        (2.0, 4),
        (511.0, 4),
        (512.0, 4),
        (513.0, 5),
        (131072.0, 5),
        (131073.0, 6),
    ],
)
def test_exponent_bits_cover_the_largest_activation_and_are_at_least_4(largest, bits):
    assert exponent_bits([Ranges(layer_in=largest, layer_out=1.0, params=1.0)]) == bits
    assert exponent_bits([Ranges(layer_in=1.0, layer_out=largest, params=1.0)]) == bits


def test_exponent_bits_are_those_of_the_whole_net_whatever_its_weights():
    small = Ranges(1.0, 1.0, params=1e9)
    assert exponent_bits([small]) == 4
    assert exponent_bits([small, Ranges(1000.0, 1.0, 1.0), small]) == 5
    assert exponent_bits([]) == 4


def test_float32s_largest_activation_needs_8_exponent_bits():
    assert exponent_bits([Ranges(3.4e38, 1.0, 1.0)]) == 8


@pytest.mark.parametrize(
    ("largest", "bits"),
    [
        (0.0, 4),
        (341.0, 4),
        (342.0, 5),  # 513 has an exponent of 9, above the 8 of 4 bits
        (512.0, 5),
        (87381.0, 5),
        (87382.0, 6),
        (3.4e38, 8),
    ],
)
def test_minifloat_of_16_bits_holds_half_as_much_again_as_the_largest_activation(largest, bits):
    everywhere = [RANGES, Ranges(1.0, largest, 1e9)]
    found = written("minifloat", 16, Ranges(1.0, 1.0, 1.0), everywhere=everywhere)
    assert (found.exp_bits, found.mant_bits) == (bits, 15 - bits)
    assert unsaturated_exponent_bits([]) == 4


def test_minifloat_of_fewer_bits_and_legacy_ones_hold_what_the_original_holds():
    everywhere = [Ranges(512.0, 1.0, 1.0)]
    assert written("minifloat", 15, everywhere=everywhere).exp_bits == 4
    assert written("minifloat", 16, everywhere=everywhere, legacy=True).exp_bits == 4


@settings(deadline=None)
@given(bits=st.integers(16, 32), largest=st.floats(1, 2.0**127, width=32))
def test_no_activation_saturates_as_a_minifloat_of_16_bits_or_more(bench, bits, largest):
    number_format = layer_formats(written("minifloat", bits, Ranges(1.0, largest, 1.0))).layer_out
    found = bench.quantize(number_format, [largest, -largest]).astype(np.float64)
    assert abs(found - [largest, -largest]).max() <= largest * 2.0 ** -(number_format.mant_bits + 1)


def test_minifloat_tries_the_widths_that_leave_a_mantissa():
    mode = MODES.get("minifloat")
    assert mode.widths([1, 2, 4, 8, 16], [RANGES]) == [16, 8]
    assert mode.widths([16, 8, 6, 5], [RANGES]) == [16, 8, 6]  # with 4 exponent bits
    assert mode.widths([16, 8, 6, 5], [Ranges(1e30, 1.0, 1.0)]) == [16]  # 8 - 1 - 8 is below 1


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("bits", "mant_bits", "exp_bits"), [(16, 10, 5), (8, 2, 5)])
def test_what_is_written_as_minifloat_is_read_back(bits, mant_bits, exp_bits, legacy):
    everywhere = [RANGES, Ranges(1000.0, 1.0, 1.0)]
    found = written("minifloat", bits, everywhere=everywhere, legacy=legacy)
    assert layer_formats(found).weights == Minifloat(mant_bits, exp_bits)


def test_minifloat_of_32_bits_is_float32(bench, many_floats):
    formats = layer_formats(written("minifloat", 32))
    assert formats.weights == Minifloat(23, 8)
    assert layer_formats(written("minifloat", 32, legacy=True)).weights == Minifloat(27, 4)


# -- powers of two -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_powers_of_two_are_written_with_exponents_minus_8_to_minus_1_and_8_bit_activations(legacy):
    formats = layer_formats(written("integer_power_of_2_weights", 4, legacy=legacy))
    assert formats.weights == PowerOfTwo(-8, -1)
    assert formats.bias is None
    assert (formats.layer_in, formats.layer_out) == (Fixed(8, 0), Fixed(8, 5))


def test_powers_of_two_have_one_width_whatever_is_offered():
    mode = MODES.get("integer_power_of_2_weights")
    assert mode.widths([16, 8], [RANGES]) == [4]
    assert mode.fallback_bits == 4


# -- the summary ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        ("dynamic_fixed_point", ["Convolutional (CONV) and fully", "connected (FC) layers."]),
        ("minifloat", ["Convolutional (CONV) and fully", "connected (FC) layers."]),
        (
            "integer_power_of_2_weights",
            ["Integer-power-of-two weights", "in Convolutional (CONV) and", "fully connected (FC) layers."],
        ),
    ],
)
def test_the_heading_of_the_summary_is_the_originals(mode, lines):
    expected = ["Network accuracy analysis for", *lines, "Baseline 32bit float: 0.5768"]
    assert MODES.get(mode).heading("0.5768") == expected


def test_a_width_that_is_lossless_is_never_below_float32s_precision():
    for largest in (1e-30, 0.3, 1.0, 7e4, 1e30):
        found = layer_formats(written("dynamic_fixed_point", 32, Ranges(largest, largest, largest)))
        step = math.ldexp(1.0, -found.layer_in.frac_bits)
        assert step <= largest * 2**-24


# -- biases with a format of their own


@pytest.mark.parametrize("names", ["bw_bias fl_bias", "bw_bias_params fl_bias_params", "bw_params_bias fl_params_bias"])
def test_the_format_of_biases_is_read_under_our_name_and_the_forks(names):
    bits, length = names.split()
    formats = read(f"bw_params: 4 fl_params: 3 {bits}: 16 {length}: 9")
    assert (formats.weights, formats.bias) == (Fixed(4, 3), Fixed(16, 9))


def test_without_a_format_of_their_own_biases_have_the_weights():
    formats = read("bw_params: 4 fl_params: 3")
    assert formats.bias == formats.weights == Fixed(4, 3)


def test_biases_that_are_not_trimmed_have_no_format():
    assert read("bw_bias: 16 fl_bias: 9 trim_params: false").bias is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bw_bias: 16", "bw_bias without fl_bias"),
        ("fl_params_bias: 3", "fl_params_bias without bw_bias"),
        ("bw_bias: 8 bw_bias_params: 8 fl_bias: 2", "bw_bias and bw_bias_params are names of the same field"),
        ("bw_bias: 0 fl_bias: 2", "a width of 0 bits is out of range"),
        (
            "precision: MINIFLOAT bw_bias: 8 fl_bias: 2",
            "bw_bias: biases cannot have a format of their own with precision MINIFLOAT",
        ),
        (
            "precision: INTEGER_POWER_OF_2_WEIGHTS fl_bias_params: 2",
            "fl_bias_params: biases cannot have a format of their own with precision INTEGER_POWER_OF_2_WEIGHTS",
        ),
    ],
)
def test_an_incomplete_or_contradictory_format_of_biases_is_refused(text, message):
    with pytest.raises(LayerError) as refused:
        read(text)
    assert str(refused.value).startswith(message)


BIASED = Ranges(layer_in=1.0, layer_out=1.0, params=0.4, biases=(-7.3, 0.2), input_energy=1.0)


def test_with_their_own_format_biases_do_not_widen_the_weights():
    quantization = new("QuantizationParameter")
    mode = MODES.get("dynamic_fixed_point")
    mode.write(quantization, {Role.PARAMS: 8}, BIASED, everywhere=[BIASED], legacy=False)
    assert (quantization.fl_params, quantization.HasField("bw_bias")) == (4, False)
    mode.write(quantization, {Role.PARAMS: 8, Role.BIAS: 16}, BIASED, everywhere=[BIASED], legacy=False)
    # 0.4 is below 2^-1, so that even the bit of the sign is a fractional one; 7.3 needs three bits and the sign
    assert (quantization.bw_params, quantization.fl_params) == (8, 8)
    assert (quantization.bw_bias, quantization.fl_bias) == (16, 12)


def test_biases_of_32_bits_have_headroom_and_biases_of_zero_a_range_of_one():
    mode, zeros = MODES.get("dynamic_fixed_point"), replace(BIASED, biases=(0.0,))
    wide, zero = new("QuantizationParameter"), new("QuantizationParameter")
    mode.write(wide, {Role.BIAS: 32}, BIASED, everywhere=[BIASED], legacy=False)
    mode.write(zero, {Role.BIAS: 16}, zeros, everywhere=[zeros], legacy=False)
    assert (wide.fl_bias, zero.fl_bias) == (32 - 4 - 4, 15)


def test_a_layer_without_biases_gets_no_format_for_them():
    unbiased = replace(BIASED, biases=())
    quantization = new("QuantizationParameter")
    widths = {Role.PARAMS: 8, Role.BIAS: 16}
    MODES.get("dynamic_fixed_point").write(quantization, widths, unbiased, everywhere=[unbiased], legacy=False)
    assert [field.name for field, _ in quantization.ListFields()] == ["bw_params", "fl_params"]


def test_the_least_squared_error_of_weights_ignores_biases_with_their_own_format():
    weights = np.array([0.1, -0.1, 0.05, 0.9], np.float32)
    ranges = Ranges(1.0, 1.0, 0.9, biases=(30.0,), input_energy=0.01, weights=weights)
    mode = configured_mode("dynamic_fixed_point", {"fl_params": "mse"})
    lengths = []
    for widths in ({Role.PARAMS: 4}, {Role.PARAMS: 4, Role.BIAS: 16}):
        quantization = new("QuantizationParameter")
        mode.write(quantization, widths, ranges, everywhere=[ranges], legacy=False)
        lengths.append(quantization.fl_params)
    alone = written("dynamic_fixed_point", 4, replace(ranges, biases=()), roles=[Role.PARAMS], fl_params="mse")
    assert lengths[1] == alone.fl_params > lengths[0]


@pytest.mark.parametrize("rule", ["original", "range", "mse", "auto"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 15])
def test_an_unsigned_format_is_that_of_a_bit_more_without_its_negative_numbers(bits, rule):
    values = np.random.default_rng(bits).exponential(size=1000)
    ranges = Ranges(float(values.max()), 1.0, 1.0, samples=samples(values, np.ones(1000)))
    signed = written("dynamic_fixed_point", bits + 1, ranges, fl_layer=rule) if bits < 15 else None
    ranges = replace(ranges, never_negative=frozenset([Role.LAYER_IN]))
    found = written("dynamic_fixed_point", bits, ranges, fl_layer=rule, unsigned="true")
    assert (found.bw_layer_in, found.unsigned_layer_in, found.unsigned_layer_out) == (bits, True, False)
    if signed is not None:
        assert found.fl_layer_in == signed.fl_layer_in
    assert layer_formats(found).layer_in.grid() == Grid(found.fl_layer_in, 0, 2**bits - 1)


def test_negative_values_of_a_sample_do_not_matter_to_an_unsigned_format():
    values = [*np.linspace(0.1, 3, 50), *[-100.0] * 50]
    ranges = Ranges(3.0, 3.0, 1.0, samples=samples(values, [1.0] * 100), never_negative=frozenset([Role.LAYER_OUT]))
    found = written("dynamic_fixed_point", 4, ranges, fl_layer="mse", unsigned="true")
    assert found.fl_layer_out == 2
