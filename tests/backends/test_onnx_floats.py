"""LayerFormats to minifloats made cheap: twice in one go, and on the assumption that exponents are in range.

`agree` compares each result with that of the plain ops, bit for bit.
"""

import numpy as np
import pytest

from ristretto_cli.ops import ConvGeometry, Floats, Grid, PoolGeometry

from .conftest import MACHINES, fast_nodes

NAN, INF = float("nan"), float("inf")
EIGHT = Floats(mant_bits=3, exp_bits=4)  # largest 480, smallest 2^-7
ONE_CELL = ConvGeometry.dense(2)


def once(floats):
    return lambda ops, x: ops.quantize_float(x, floats)


def twice(floats):
    return lambda ops, x: ops.quantize_float(ops.quantize_float(x, floats), floats)


def scaled(ops, x, factor, bias=None):
    """A convolution that multiplies each channel with a number, and adds one to it."""
    weight = np.full((x.shape[1], 1, 1, 1), factor, np.float32)
    added = None if bias is None else ops.constant(np.full(x.shape[1], bias, np.float32))
    return ops.conv(x, ops.constant(weight), added, ConvGeometry.dense(2, group=x.shape[1]))


def image(numbers):
    return np.asarray(numbers, np.float32).reshape(1, 1, 1, -1)


def test_the_first_trim_keeps_a_carry_beyond_the_largest_number_and_the_second_takes_it_away(agree):
    x = [495, 496, 511, -511, 480, 1.0625, 1.1875, 2.0**-7, 2.0**-7 * 0.99, 0]
    assert agree(once(EIGHT), x).top.tolist() == [480, 512, 512, -512, 480, 1, 1.25, 2.0**-7, 0, 0]
    assert agree(twice(EIGHT), x).top.tolist() == [480, 480, 480, -480, 480, 1, 1.25, 2.0**-7, 0, 0]


def test_a_third_trim_leaves_no_node(agree):
    x = [500, 1.1, -3.3]
    nodes = agree(twice(EIGHT), x).nodes
    assert agree(lambda ops, v: ops.quantize_float(twice(EIGHT)(ops, v), EIGHT), x).nodes == nodes


def test_what_is_rounded_twice_is_rounded_once(agree):
    """Cut off, times 0 where it is too small, less the rest of the mantissa."""
    nodes = agree(twice(EIGHT), [500, 1.1, -3.3]).nodes
    assert nodes == {"Clip": 1, "Abs": 1, "HardSigmoid": 1, "Mul": 3, "Sub": 1}


@pytest.mark.parametrize("quantizing", [once, twice])
@pytest.mark.parametrize(("mant_bits", "exp_bits"), [(3, 4), (10, 5), (2, 6), (21, 4)])
def test_what_is_below_the_smallest_number_is_0_to_the_last_place(agree, quantizing, mant_bits, exp_bits):
    floats = Floats(mant_bits, exp_bits)
    smallest = np.float32(floats.smallest)
    below = np.nextafter(smallest, np.float32(0))
    x = np.array([smallest, below, smallest / 2, smallest * 2.0**-60, 1e-45, 0, 2.0**60], np.float32)
    fast = agree(quantizing(floats), np.concatenate([x, -x]))
    assert fast.top.tolist()[:6] == [smallest, 0, 0, 0, 0, 0]
    assert fast.top.tolist()[7:13] == [-smallest, 0, 0, 0, 0, 0]


def test_a_peak_is_the_largest_magnitude(agree):
    assert agree(once(EIGHT), [-511, 1]).assumed
    assert not agree(once(EIGHT), [-512, 1]).assumed
    assert not agree(once(EIGHT), [512, 1]).assumed


@pytest.mark.parametrize("x", [512, -512, 1e6, -1e30, INF, -INF, NAN])
def test_an_exponent_above_the_top_one_saturates_without_assumptions(agree, x):
    fast = agree(once(EIGHT), [x, 1.0625])
    assert fast.top.tolist() == [-480 if x < 0 else 480, 1]
    assert not fast.assumed


def test_exponents_in_range_are_what_is_assumed(agree):
    assert agree(once(EIGHT), [511.9, -511.9]).assumed
    assert agree(once(EIGHT), [-1e-30, 0]).assumed


@pytest.mark.parametrize("x", [1e6, -1e18, 2.0**63])
def test_of_two_trims_nothing_is_assumed(agree, x):
    fast = agree(twice(EIGHT), [x, 1.0625])
    assert fast.top.tolist() == [-480 if x < 0 else 480, 1]
    assert fast.assumed


def test_a_value_that_is_too_large_in_the_middle_of_a_graph_is_noticed_behind_what_it_spoils(agree):
    def build(ops, x):
        first = ops.quantize_float(x, EIGHT)
        return ops.quantize_float(ops.sub(ops.quantize_float(ops.mul(first, first), EIGHT), first), EIGHT)

    fast = agree(build, [30.0, 2.0])
    assert fast.top.tolist() == [448, 2]
    assert not fast.assumed


@pytest.mark.parametrize("exp_bits", [0, 1, 2, 4, 5, 6, 7, 8, 9, 12])
@pytest.mark.parametrize("mant_bits", [0, 1, 3, 9, 10, 11, 16, 22, 23, 40])
def test_every_format_is_that_of_the_plain_ops(agree, mant_bits, exp_bits):
    floats = Floats(mant_bits, exp_bits)
    rng = np.random.default_rng(0)
    anything = (rng.uniform(1, 2, 400) * 2.0 ** rng.integers(-30, 31, 400) * rng.choice([-1, 1], 400)).tolist()
    powers = [
        sign * 2.0**e * near for e in range(-20, 21) for sign in (1, -1) for near in (1, 1 + 2.0**-23, 1 - 2.0**-24)
    ]
    ties = [2.0**e * (1 + (2 * k + 1) * 2.0 ** -(mant_bits + 1)) for e in (-3, 0, 5) for k in range(5)]

    def build(ops, x):
        first = ops.quantize_float(x, floats)
        return first, ops.quantize_float(first, floats), ops.quantize_float(ops.relu(first), floats)

    beyond = 2.0 ** min(floats.top_exponent + 1, 64)
    inside = [x for x in [*anything, *powers, *ties, 0, -0.0, 1e-45, 1e-38, 2.0**-126] if abs(x) < beyond]
    assert agree(build, inside).assumed
    agree(build, [*anything, *ties, 1e-45, 3e38, -3e38, 2.0**60, 2.0**61, 2.0**62, 2.0**63])


def test_the_second_trim_goes_in_front_of_what_moves_elements(agree):
    def build(ops, x):
        value = ops.relu(ops.quantize_float(scaled(ops, ops.quantize_float(x, EIGHT), 0.375, 0.01), EIGHT))
        value = ops.max_pool(value, PoolGeometry(kernel=(1, 2), stride=(1, 2), pad=(0, 0), ceil=True))
        value = ops.slice(ops.reshape(value, (1, 3)), 1, 0, 2)
        return ops.quantize_float(value, EIGHT)

    fast = agree(build, image([1, 3, 5, -7, 1e5, 9]))
    assert fast.top.tolist() == [[1.125, 1.875]]


def test_a_concatenation_of_what_was_trimmed_once_and_twice(agree):
    def build(ops, a, b):
        return ops.quantize_float(ops.concat([ops.quantize_float(a, EIGHT), twice(EIGHT)(ops, b)], 0), EIGHT)

    assert agree(build, [500, 1.1], [500, 2.2]).top.tolist() == [480, 1.125, 480, 2.25]


def test_a_concatenation_of_formats_and_of_what_was_never_trimmed(agree):
    other = Floats(1, 5)

    def build(ops, a, b):
        mixed = ops.concat([ops.quantize_float(a, EIGHT), ops.quantize_float(b, other)], 0)
        return ops.quantize_float(mixed, EIGHT), ops.quantize_float(ops.concat([mixed, b], 0), other)

    fast = agree(build, [500, 1.1], [500, 2.2])
    assert fast.top[0].tolist() == [480, 1.125, 480, 2]


def test_a_window_behind_the_image_is_trimmed_like_everything_else(agree):
    def build(ops, x):
        value = ops.relu(ops.quantize_float(x, EIGHT))
        value = ops.max_pool(value, PoolGeometry(kernel=(1, 1), stride=(1, 3), pad=(0, 0), ceil=True))
        return value, ops.quantize_float(value, EIGHT)

    fast = agree(build, image([3, 4]))
    assert fast.top[1].ravel().tolist() == [3, -480]


def test_trims_of_both_kinds_one_after_the_other(agree):
    grid = Grid(4, -128, 127)

    def build(ops, x):
        fixed_first = ops.quantize_float(scaled(ops, ops.quantize_fixed(x, grid), 1.25), EIGHT)
        return (
            fixed_first,
            ops.quantize_fixed(fixed_first, grid),
            ops.quantize_float(ops.quantize_fixed(fixed_first, grid), EIGHT),
        )

    fast = agree(build, image([0.3, -1.7, 7.9, -100]))
    assert fast.top[0].ravel().tolist() == [0.375, -2, 10, -10]


@pytest.mark.parametrize("factor", [2.0**100, 1e30, 2e38, 1e-38, 1e-45])
def test_weights_that_would_leave_float32s_range_are_not_scaled(agree, factor):
    def build(ops, x):
        product = scaled(ops, ops.quantize_float(x, EIGHT), factor, factor)
        return product, ops.quantize_float(product, EIGHT), twice(EIGHT)(ops, product)

    agree(build, image([0, 1, -3, 0.01]))


def test_a_chain_of_layers_is_not_limited_by_pythons_stack():
    def build(ops, x):
        value = ops.quantize_float(x, EIGHT)
        for i in range(800):
            value = ops.relu(ops.reshape(value, (1, 2, 1) if i % 2 == 0 else (1, 2, 1, 1)))
        return ops.quantize_float(value, EIGHT)

    assert fast_nodes(build, (1, 2, 1, 1)).total() < 5000


def guard(build, *, assuming=True):
    """The guard of the fast graph of build(ops, x)."""
    machine = MACHINES["all"]
    return machine.lowered(lambda ops: {"y": build(ops, ops.input("x", (2,)))}, assuming=assuming).guard


def test_without_assumptions_there_is_no_guard():
    assert guard(once(EIGHT), assuming=False) is None


def test_only_assumptions_on_the_way_to_the_outputs_have_a_guard():
    def unread(ops, x):
        ops.quantize_float(x, EIGHT)
        return ops.relu(x)

    assert guard(unread) is None
    assert guard(twice(EIGHT)) is None
    assert guard(once(EIGHT)) is not None
