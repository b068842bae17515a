"""Cheap fixed-point quantization: values with known grids, integers, bytes, channels in blocks.

`agree` compares each result with that of the plain ops, bit for bit.
"""

import numpy as np
import pytest

from ristretto_cli.backends.exact_kernels import NONE
from ristretto_cli.backends.facts import lowest_magnitude
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.ops import ConvGeometry, Grid, PoolGeometry

from .conftest import MACHINES, Machine, fast_nodes

NAN, INF = float("nan"), float("inf")
ONE_CELL = ConvGeometry.dense(2)
ONE_PLACE = PoolGeometry(kernel=(1, 1), stride=(1, 1), pad=(0, 0), ceil=True)
QUANTIZED = {"QuantizeLinear": 1, "DequantizeLinear": 1}


def fixed(bits, frac_bits):
    return Grid(frac_bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def constant(ops, array, grid=None):
    return ops.constant(np.asarray(array, np.float32), grid=grid)


def scaled(ops, x, factor, bias=None, *, grid=None):
    """A convolution that multiplies each channel with a number, and adds one to it."""
    weight = np.full((x.shape[1], 1, 1, 1), factor)
    added = None if bias is None else constant(ops, np.broadcast_to(bias, x.shape[1:2]))
    return ops.conv(x, constant(ops, weight, grid), added, ConvGeometry.dense(2, group=x.shape[1]))


def image(numbers, channels=1):
    """(1, channels, 1, len(numbers)), all channels alike."""
    return np.broadcast_to(np.asarray(numbers, np.float32), (1, channels, 1, len(numbers))).copy()


# --- quantization that is omitted


@pytest.mark.parametrize("finer", [fixed(8, 2), fixed(16, 2), fixed(16, 4), fixed(32, 16)])
def test_a_second_trim_to_a_grid_that_holds_the_first_leaves_no_node(agree, finer):
    fast = agree(lambda ops, x: ops.quantize_fixed(ops.quantize_fixed(x, fixed(8, 2)), finer), [0.3, -0.4, 50, -50])
    assert fast.top.tolist() == [0.25, -0.5, 31.75, -32]
    assert fast.nodes == QUANTIZED


@pytest.mark.parametrize(
    ("build", "node"),
    [
        (lambda ops, x: ops.reshape(x, (2, 2)), "Reshape"),
        (lambda ops, x: ops.slice(x, 0, 1, 3), "Slice"),
        (lambda ops, x: ops.concat([x, x], 0), "Concat"),
    ],
)
def test_what_moves_elements_keeps_their_grid(agree, build, node):
    fast = agree(
        lambda ops, x: ops.quantize_fixed(build(ops, ops.quantize_fixed(x, fixed(8, 2))), fixed(8, 2)),
        [1.3, -0.4, 50, 3],
    )
    assert fast.nodes == {**QUANTIZED, node: 1}


def test_a_trim_behind_what_leaves_the_grid_is_made(agree):
    fast = agree(
        lambda ops, x: ops.quantize_fixed(ops.add(ops.quantize_fixed(x, fixed(8, 2)), x), fixed(8, 2)), [1.3, -0.4, 50]
    )
    assert fast.nodes["QuantizeLinear"] == 2


@pytest.mark.parametrize("second", [fixed(16, -2), fixed(8, -2), fixed(4, 1)])
@pytest.mark.parametrize("first", [fixed(16, 1), fixed(8, 1)])
def test_a_coarser_trim_rounds_what_the_finer_one_rounded(agree, first, second):
    """1.76 becomes 2 in halves, and then 0 in fours; rounded once it would be 0 too, but 1.9 + 0.1 would be 4."""
    fast = agree(
        lambda ops, x: ops.quantize_fixed(ops.quantize_fixed(x, first), second), [1.76, 1.9, 2.2, 5.8, -5.8, 6.2]
    )
    assert fast.top.tolist()[:3] == ([0, 0, 0] if second.frac_bits < 0 else [2, 2, 2])


def test_rounding_to_halves_and_then_to_fours_is_not_rounding_to_fours(agree):
    fast = agree(lambda ops, x: ops.quantize_fixed(ops.quantize_fixed(x, fixed(16, 1)), fixed(16, -2)), [2.2, 6.1])
    assert fast.top.tolist() == [0, 8]
    fast = agree(lambda ops, x: ops.quantize_fixed(x, fixed(16, -2)), [2.2, 6.1])
    assert fast.top.tolist() == [4, 8]


def test_bytes_are_brought_onto_another_grid_as_bytes(agree):
    fast = agree(
        lambda ops, x: ops.quantize_fixed(ops.quantize_fixed(x, fixed(8, 2)), fixed(8, 0)),
        [1.4, 2.5, 3.5, -2.5, 50, -50],
    )
    assert fast.top.tolist() == [2, 2, 4, -2, 32, -32]  # of 1.5, 2.5, 3.5, -2.5, 31.75, -32
    assert fast.nodes == {**QUANTIZED, "QLinearAdd": 1}


@pytest.mark.parametrize("second", [fixed(8, 5), fixed(8, 17), fixed(8, 18), fixed(8, -13), fixed(8, -14), fixed(3, 4)])
def test_each_byte_is_brought_onto_a_far_grid(agree, second):
    agree(lambda ops, x: ops.quantize_fixed(ops.quantize_fixed(x, fixed(8, 2)), second), np.arange(-130, 130) / 4)


def test_bytes_on_a_narrower_grid_of_the_same_step_are_cut_off_alone(agree):
    fast = agree(lambda ops, x: ops.quantize_fixed(ops.quantize_fixed(x, fixed(8, 2)), fixed(4, 2)), [1.3, 3, -3])
    assert fast.nodes == {**QUANTIZED, "Clip": 1}


def test_bytes_read_by_formats_with_two_ends_are_cut_twice(agree):
    def build(ops, x):
        rectified = ops.relu(ops.quantize_fixed(x, fixed(4, 0)))
        return rectified, ops.quantize_fixed(rectified, fixed(1, 0)), ops.quantize_fixed(rectified, fixed(3, 0))

    assert [top.tolist() for top in agree(build, [-9, 2, 9]).top] == [[0, 2, 7], [0, 0, 0], [0, 2, 3]]


# --- one trim


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (1, [-1, -1, -1, 0, 0, 0, 0, 0]),
        (2, [-2, -2, -1, 0, 0, 1, 1, 1]),
        (4, [-8, -8, -1, 0, 0, 2, 7, 7]),
        (8, [-9, -9, -1, 0, 0, 2, 8, 100]),
        (16, [-9, -9, -1, 0, 0, 2, 8, 100]),
        (32, [-9, -9, -1, 0, 0, 2, 8, 100]),
    ],
)
def test_every_width_saturates_at_its_own_ends(agree, bits, expected):
    fast = agree(lambda ops, x: ops.quantize_fixed(x, fixed(bits, 0)), [-9.4, -8.6, -1, -0.5, 0.5, 1.5, 8.3, 100])
    assert fast.top.tolist() == expected


def test_of_eight_bits_on_a_narrower_grid_the_bytes_are_cut_off(agree):
    fast = agree(lambda ops, x: ops.quantize_fixed(x, fixed(4, 0)), [-9, -8, 7, 8])
    assert fast.top.tolist() == [-8, -8, 7, 7]
    assert fast.nodes == {**QUANTIZED, "Clip": 1}


@pytest.mark.parametrize(
    "frac_bits", [-(2**31), -1000, -200, -128, -100, -61, -60, -40, 40, 60, 61, 100, 128, 200, 1000, 2**31 - 1]
)
@pytest.mark.parametrize("bits", [1, 8, 16, 32, 128])
def test_extreme_grids_are_those_of_the_plain_ops(agree, frac_bits, bits):
    x = [0, 1, -1, 1e-12, -1e-12, 2**63, -1e19, 1e-38, 1e-44, 3.4e38, -3.4e38, INF, -INF, NAN]
    grid = fixed(bits, frac_bits)
    agree(lambda ops, v: ops.quantize_fixed(v, grid), x)
    agree(lambda ops, v: ops.relu(ops.quantize_fixed(ops.relu(ops.quantize_fixed(v, grid)), fixed(8, 2))), x)
    agree(lambda ops, v: ops.quantize_fixed(scaled(ops, ops.quantize_fixed(v, grid), 0.75, 0.5), grid), image(x[:8]))
    agree(
        lambda ops, v: ops.quantize_fixed(scaled(ops, ops.quantize_fixed(v, fixed(8, 3)), 0.75, 0.5), grid),
        image(x[:8]),
    )


def test_minus_zero_may_lose_its_sign_and_nothing_else(agree):
    fast = agree(lambda ops, x: ops.relu(ops.quantize_fixed(x, fixed(8, 0))), [-0.0, -0.2, 0.2])
    assert fast.top.tolist() == [0, 0, 0]


@pytest.mark.parametrize("x", [[NAN, 1], [INF, 1], [-INF, 1], [1e30, 1], [2.0**64, 1]])
def test_where_an_input_is_not_finite_nothing_is_assumed(agree, x):
    """NaN becomes the grid's upper end."""
    fast = agree(lambda ops, v: ops.quantize_fixed(v, fixed(8, 0)), x)
    assert fast.top.tolist() == [-128 if x[0] == -INF else 127, 1]
    assert not fast.assumed


def test_what_becomes_infinite_on_the_way_saturates(agree):
    def build(ops, x):
        squared = ops.mul(ops.mul(x, x), ops.mul(x, x))
        return ops.quantize_fixed(squared, fixed(8, 0)), ops.quantize_fixed(ops.sub(squared, squared), fixed(16, 0))

    fast = agree(build, [2.0**50, 2])
    assert [top.tolist() for top in fast.top] == [[127, 16], [32767, 0]]
    assert fast.assumed


# --- products


def test_a_convolution_of_bytes_between_trims_is_computed_in_integers(agree):
    def build(ops, x):
        product = scaled(ops, ops.quantize_fixed(x, fixed(8, 1)), -1.5, 3, grid=fixed(8, 1))
        return ops.relu(ops.quantize_fixed(product, fixed(8, 0)))

    fast = agree(build, image([-2, 0, 1, 3, -200]))
    assert fast.top.ravel().tolist() == [6, 3, 2, 0, 99]
    assert fast.nodes == {"QuantizeLinear": 1, "QLinearConv": 1, "Clip": 1, "DequantizeLinear": 1}


def test_an_inner_product_of_bytes_is_too(agree):
    def build(ops, x, largest):
        weight = constant(ops, [[1, -2], [0.5, largest]], fixed(16, 1))
        return ops.quantize_fixed(
            ops.linear(ops.quantize_fixed(x, fixed(8, 1)), weight, constant(ops, [1, 0])), fixed(8, 0)
        )

    for largest, kernel in ((63.5, "QGemm"), (64, "Gemm")):  # 64 is 128 halves: no byte
        fast = agree(lambda ops, x, largest=largest: build(ops, x, largest), [[1, 2], [100, -100]])
        assert fast.top.tolist() == [[-2, 127], [127, -128]]
        assert fast.nodes[kernel] == 1


def test_weights_up_to_plus_128_are_no_bytes(agree):
    def build(ops, x):
        product = scaled(ops, ops.quantize_fixed(x, fixed(8, 0)), 128, grid=Grid(0, -128, 128))
        return ops.quantize_fixed(product, fixed(8, -7))

    fast = agree(build, image([1, -1, 2, 3.4, 127, -128]))
    assert fast.top.ravel().tolist() == [128, -128, 256, 384, 127 * 128, -128 * 128]
    assert "QLinearConv" not in fast.nodes


@pytest.mark.parametrize("grid", [fixed(8, 0), fixed(8, 2**31 - 1), fixed(8, -(2**31)), Grid(1000, -1, 1)])
def test_weights_that_are_all_zero_leave_the_bias(agree, grid):
    def build(ops, x):
        return ops.quantize_fixed(scaled(ops, ops.quantize_fixed(x, fixed(8, 0)), 0, 2.5, grid=grid), fixed(8, 0))

    assert agree(build, image([1, -100])).top.ravel().tolist() == [2, 2]


@pytest.mark.parametrize("bias", [1e9, -1e9, 2.0**31, 1e30, -3e38, INF, -INF, NAN])
def test_a_huge_bias_saturates(agree, bias):
    def build(ops, x):
        return ops.quantize_fixed(
            scaled(ops, ops.quantize_fixed(x, fixed(8, 0)), 1, bias, grid=fixed(8, 0)), fixed(8, 0)
        )

    assert set(agree(build, image([1, -100])).top.ravel()) == {-128 if bias < 0 else 127}


BIASES = [0.25, 0.5, 0.75, 1 - 2.0**-14, 2.0**-14, -0.25, -0.5, -(2.0**-14), 100.25, -100.25]


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("frac_bits", [-4, -3, -2, -1, 0, 1])
@pytest.mark.parametrize("rectified", [True, False])
def test_sums_on_ties_and_beside_them_are_rounded_with_what_the_bias_has_beyond_a_unit(
    agree, bias, frac_bits, rectified
):
    """All sums from -128 to 127 in units of 1, and steps of 1/2 to 16."""

    def build(ops, x):
        product = scaled(ops, ops.quantize_fixed(x, fixed(8, 0)), 1, bias, grid=fixed(8, 0))
        top = ops.quantize_fixed(product, fixed(8, frac_bits))
        return ops.relu(top) if rectified else top

    x = np.arange(-128, 128)
    step = 2.0**-frac_bits
    exact = np.clip(np.round((x + np.float64(bias)) / step), -128, 127) * step
    fast = agree(build, image(x))
    assert fast.top.ravel().tolist() == (np.maximum(exact, 0) if rectified else exact).tolist()


def test_of_a_bias_on_the_units_between_all_is_in_integers_and_of_another_what_a_relu_leaves(agree):
    def build(ops, x, bias, rectified):
        product = scaled(ops, ops.quantize_fixed(x, fixed(8, 0)), 1, bias, grid=fixed(8, 0))
        top = ops.quantize_fixed(product, fixed(8, -1))
        return ops.relu(top) if rectified else top

    def nodes(bias, rectified):
        return agree(lambda ops, x: build(ops, x, bias, rectified), image([1, 3])).nodes

    assert nodes(1, False)["QLinearConv"] == nodes(1, True)["QLinearConv"] == 1
    assert nodes(0.25, True)["QLinearConv"] == 1
    assert nodes(0.25, False)["QLinearConv"] == 0


def test_one_channel_with_a_rest_does_not_move_the_others(agree):
    """Sums of 1 and 3 are ties between 0 and 2, 2 and 4; with a quarter more they go up."""

    def build(ops, x):
        product = scaled(ops, ops.quantize_fixed(x, fixed(8, 0)), 1, [0, 0.25], grid=fixed(8, 0))
        return ops.relu(ops.quantize_fixed(product, fixed(8, -1)))

    assert agree(build, image([1, 3, 5], 2)).top[0, :, 0].tolist() == [[0, 4, 4], [2, 4, 6]]


def test_a_large_sum_just_below_a_tie_stays_below_it(agree):
    """816 * 127 * 127 + 90 * 127 + 41 and a quarter, where the tie between 100 and 101 steps of 2^17 is one more."""
    weight = np.array([[127.0] * 816 + [90, 41]])

    def build(ops, x):
        product = ops.linear(
            ops.quantize_fixed(x, fixed(8, 0)), constant(ops, weight, fixed(8, 0)), constant(ops, [0.25])
        )
        return ops.relu(ops.quantize_fixed(product, fixed(8, -17)))

    assert (201 * 2**16 - 1) == 816 * 127 * 127 + 90 * 127 + 41
    assert agree(build, [[127.0] * 817 + [1]]).top.tolist() == [[100 * 2**17]]


@pytest.mark.parametrize("factor", [2.0**70, -(2.0**100), 2e38, 1e-30, 1e-38, 1e-45])
@pytest.mark.parametrize("frac_bits", [(-60, 60), (60, -60), (-60, -60), (60, 60), (0, 60), (0, -60), (60, 0)])
def test_weights_that_would_leave_float32s_range_are_not_scaled(agree, factor, frac_bits):
    """Infinity times 0 would be NaN; below 2^-126 bits would be lost."""
    before, after = frac_bits

    def build(ops, x):
        product = scaled(ops, ops.quantize_fixed(x, fixed(16, before)), factor * 1.5, factor)
        return product, ops.quantize_fixed(product, fixed(16, after)), ops.quantize_fixed(product, fixed(8, after))

    agree(build, image([0, 1, 1e-18, 3e18, -2e18]))


def test_two_trims_of_one_product_and_the_product_itself(agree):
    def build(ops, x):
        product = scaled(ops, ops.quantize_fixed(x, fixed(8, 2)), 0.75, 0.125, grid=fixed(8, 2))
        return (
            product,
            ops.quantize_fixed(product, fixed(8, 0)),
            ops.quantize_fixed(product, fixed(8, 3)),
            ops.relu(product),
        )

    fast = agree(build, image([1, -1]))
    assert [top.ravel().tolist() for top in fast.top] == [[0.875, -0.625], [1, -1], [0.875, -0.625], [0.875, 0]]


def test_two_layers_share_a_weight_on_different_grids(agree):
    weight = np.full((1, 1, 1, 1), 0.5, np.float32)

    def build(ops, x):
        first = ops.conv(ops.quantize_fixed(x, fixed(8, 0)), ops.constant(weight, grid=fixed(8, 1)), None, ONE_CELL)
        trimmed = ops.quantize_fixed(first, fixed(8, 1))
        second = ops.conv(trimmed, ops.constant(weight, grid=fixed(4, 2)), None, ONE_CELL)
        return trimmed, ops.quantize_fixed(second, fixed(8, 1))

    fast = agree(build, image([3, -7]))
    assert [top.ravel().tolist() for top in fast.top] == [[1.5, -3.5], [1, -2]]
    assert fast.nodes["QLinearConv"] == 2


def test_a_product_with_weights_that_are_no_constants_is_left_alone(agree):
    def build(ops, x, weight):
        return ops.quantize_fixed(ops.conv(ops.quantize_fixed(x, fixed(8, 1)), weight, None, ONE_CELL), fixed(8, 1))

    assert agree(build, image([3, -7]), [[[[0.5]]]]).top.ravel().tolist() == [1.5, -3.5]


@pytest.mark.parametrize(
    ("x", "weight", "geometry"),
    [
        ((2, 3, 7), (4, 3, 3), ConvGeometry(stride=(2,), pad=(1,), dilation=(1,))),
        ((2, 3, 5, 6), (4, 3, 3, 2), ConvGeometry(stride=(2, 1), pad=(2, 0), dilation=(2, 1))),
        ((1, 4, 5, 5), (6, 2, 3, 3), ConvGeometry(stride=(1, 1), pad=(1, 1), dilation=(1, 1), group=2)),
        ((1, 17, 4, 4), (17, 1, 3, 3), ConvGeometry(stride=(1, 1), pad=(1, 1), dilation=(1, 1), group=17)),
        ((1, 32, 4, 4), (32, 1, 5, 5), ConvGeometry(stride=(1, 1), pad=(2, 2), dilation=(1, 1), group=32)),
        ((1, 16, 4, 4), (32, 16, 3, 3), ConvGeometry(stride=(1, 1), pad=(1, 1), dilation=(1, 1))),
        ((3, 2, 3, 4, 3), (5, 2, 2, 1, 2), ConvGeometry(stride=(1, 2, 1), pad=(1, 0, 0), dilation=(1, 1, 1))),
    ],
)
@pytest.mark.parametrize("widths", [(8, 8, 8), (16, 8, 16), (8, 4, 4), (16, 16, 8)])
def test_convolutions_of_every_kind(agree, x, weight, geometry, widths):
    into, of, out = widths
    rng = np.random.default_rng(0)
    weights = rng.integers(-(2 ** (of - 1)), 2 ** (of - 1), weight) / 32
    biases = rng.integers(-100, 100, weight[0]) / 64

    def build(ops, value):
        trimmed = ops.quantize_fixed(value, fixed(into, 2))
        product = ops.conv(trimmed, constant(ops, weights, fixed(of, 5)), constant(ops, biases), geometry)
        top = ops.quantize_fixed(product, fixed(out, 0))
        return top, ops.relu(top), ops.relu(product)

    agree(build, rng.integers(-40, 40, x) / 8)


# --- channels in blocks

ENDS = [-(2.0**21), -(2.0**21) + 0.5, 2.0**21 - 1.5, 2.0**21 - 0.5, 2.0**21, 2.0**22, -(2.0**22), 2.0**23, -(2.0**23)]


@pytest.mark.parametrize("channels", [1, 16, 17, 32])
@pytest.mark.parametrize("bits", [8, 9, 16, 22, 23, 32])
def test_in_blocks_of_channels_ties_and_ends_are_as_everywhere(agree, channels, bits):
    x = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 127.5, 128.5, -128.5, 32766.5, 32767.5, -32768.5, *ENDS]

    def build(ops, value):
        product = scaled(ops, ops.quantize_fixed(value, fixed(32, 1)), 1)
        top = ops.quantize_fixed(product, fixed(bits, 0))
        pooled = ops.max_pool(top, PoolGeometry(kernel=(1, 2), stride=(1, 2), pad=(0, 1), ceil=True))
        again = ops.quantize_fixed(scaled(ops, ops.relu(pooled), 0.5), fixed(bits, 0))
        return top, ops.relu(top), pooled, again

    fast = agree(build, image(x, channels))
    high = 2 ** (bits - 1) - 1
    assert fast.top[0][0, 0, 0, :7].tolist() == [-2, -2, 0, 0, 2, 2, min(high, 128)]
    assert fast.top[0].max() == min(high, 2**23)
    assert fast.top[0].min() == max(-high - 1, -(2**23))


def test_where_there_are_blocks_they_are_used_for_grids_of_up_to_22_bits():
    def nodes(bits, has_blocks):
        def build(ops, x):
            product = scaled(ops, ops.quantize_fixed(x, fixed(16, 1)), 1)
            return ops.relu(ops.quantize_fixed(product, fixed(bits, 0)))

        return set(fast_nodes(build, (1, 16, 1, 1), Machine(NONE, has_blocks)))

    assert "HardSigmoid" in nodes(12, True)
    assert "Round" not in nodes(12, True)
    assert "HardSigmoid" not in nodes(12, False) | nodes(23, True)


# --- pooling


def test_maxima_are_taken_before_rounding_and_are_the_same(agree):
    def build(ops, x):
        top = ops.quantize_fixed(scaled(ops, ops.quantize_fixed(x, fixed(16, 3)), 0.5, 0.0625), fixed(12, 0))
        return ops.max_pool(top, PoolGeometry(kernel=(1, 2), stride=(1, 2), pad=(0, 0), ceil=True))

    fast = agree(build, image([0.9, 1.1, -3, -2.9, 9999, 8, -9999, -9998]))
    assert fast.top.ravel().tolist() == [1, -1, 2047, -2048]


def test_a_window_behind_the_image_keeps_its_lowest_number(agree):
    def build(ops, x):
        geometry = PoolGeometry(kernel=(1, 1), stride=(1, 3), pad=(0, 0), ceil=True)
        return ops.max_pool(ops.quantize_fixed(x, fixed(8, 0)), geometry)

    assert agree(build, image([3, 4, 5, 6, 7])).top.ravel().tolist()[:2] == [3, 6]
    assert agree(build, image([3, 4])).top.ravel().tolist() == [3, -np.finfo(np.float32).max]


def test_parts_on_different_grids_are_pooled_each_for_itself(agree):
    def build(ops, a, b):
        joined = ops.concat([ops.quantize_fixed(a, fixed(8, 4)), ops.quantize_fixed(b, fixed(8, -1))], 1)
        pooled = ops.max_pool(joined, PoolGeometry(kernel=(1, 2), stride=(1, 2), pad=(0, 0), ceil=True))
        return ops.quantize_fixed(pooled, fixed(8, 0))

    fast = agree(build, image([1.55, -9, 3, 4]), image([41, 300, -5, -6]))
    assert fast.top.ravel().tolist() == [2, 4, 127, -4]
    assert (fast.nodes["MaxPool"], fast.nodes["DequantizeLinear"]) == (2, 1)


def test_pooling_of_parts_that_were_joined_along_another_axis(agree):
    def build(ops, a, b):
        joined = ops.concat([ops.quantize_fixed(a, fixed(8, 4)), ops.quantize_fixed(b, fixed(8, -1))], 3)
        pooled = ops.max_pool(joined, PoolGeometry(kernel=(1, 3), stride=(1, 3), pad=(0, 0), ceil=True))
        return ops.quantize_fixed(pooled, fixed(8, 0))

    assert agree(build, image([1.55, -9, 3, 4]), image([41, -5])).top.ravel().tolist() == [3, 40]


# --- concatenations


def test_parts_on_different_grids_are_brought_to_the_next_one_each_for_itself(agree):
    def build(ops, a, b):
        joined = ops.concat([ops.quantize_fixed(a, fixed(8, 4)), ops.quantize_fixed(b, fixed(8, -1))], 1)
        product = scaled(ops, ops.quantize_fixed(joined, fixed(8, 0)), 0.5, grid=fixed(8, 1))
        return joined, ops.relu(ops.quantize_fixed(product, fixed(8, 0)))

    fast = agree(build, image([1.55, -9]), image([41, 300]))
    assert fast.top[0].ravel().tolist() == [1.5625, -8, 40, 254]
    assert fast.top[1].ravel().tolist() == [1, 0, 20, 64]


@pytest.mark.parametrize("frac_bits", [(60, -60), (-60, 60), (40, -3), (1, 2)])
def test_parts_on_grids_far_apart(agree, frac_bits):
    def build(ops, a, b):
        x = ops.concat([ops.quantize_fixed(v, fixed(16, f)) for v, f in zip((a, b), frac_bits, strict=True)], 1)
        product = scaled(ops, x, 3, grid=fixed(8, 0))
        return x, ops.relu(x), product, ops.quantize_fixed(product, fixed(8, 1)), ops.quantize_fixed(x, fixed(32, 3))

    agree(build, image([1, -1e-17, 0]), image([-2, 1e18, 3]))


@pytest.mark.parametrize(
    "narrower",
    [
        lambda ops, x: ops.relu(x),
        lambda ops, x: ops.quantize_fixed(x, fixed(4, 2)),
        lambda ops, x: ops.relu(scaled(ops, x, 1, 0.1, grid=fixed(8, 0))),
    ],
    ids=["ReLU", "fewer bits", "product"],
)
def test_parts_of_a_concatenation_are_cut_off_at_the_ends_of_their_own_grids(agree, narrower):
    def build(ops, x):
        x = ops.quantize_fixed(x, fixed(8, 2))
        parts = [x, ops.quantize_fixed(narrower(ops, x), fixed(8, 2)), narrower(ops, x)]
        joined = ops.concat([*parts, ops.quantize_fixed(x, Grid(2, -20, 20))], 1)
        return joined, ops.quantize_fixed(scaled(ops, joined, 1, grid=fixed(8, 0)), fixed(8, 1))

    agree(build, image([-40, -7, -2.5, -0.2, 0, 0.3, 1.9, 6, 40]))


def test_a_concatenation_with_something_without_a_grid_has_none(agree):
    fast = agree(
        lambda ops, x: ops.quantize_fixed(ops.concat([x, ops.quantize_fixed(x, fixed(8, 0))], 0), fixed(8, 0)),
        [0.6, 2.2],
    )
    assert fast.top.tolist() == [1, 2, 1, 2]


# --- large nets


def recorded(build):
    """The number of nodes of the fast graph of build(ops, x)."""
    return fast_nodes(build, (1, 4, 1, 1)).total()


@pytest.mark.parametrize(
    ("step", "count"),
    [
        (lambda ops, v, i: ops.relu(v), 1500),
        (lambda ops, v, i: ops.reshape(v, (1, 4, 1) if i % 2 else (1, 4, 1, 1)), 501),
        (lambda ops, v, i: ops.max_pool(v, ONE_PLACE), 500),
        (lambda ops, v, i: ops.slice(ops.concat([v, v], 1), 1, 0, 4), 500),
        (lambda ops, v, i: ops.relu(ops.quantize_fixed(scaled(ops, v, 1, grid=fixed(8, 0)), fixed(8, i % 3))), 500),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_chain_of_layers_is_not_limited_by_pythons_stack(step, count, bits):
    def build(ops, x):
        value = ops.quantize_fixed(
            scaled(ops, ops.quantize_fixed(x, fixed(bits, 2)), 1, 0.3, grid=fixed(8, 0)), fixed(bits, 2)
        )
        for i in range(count):
            value = step(ops, value, i)
        return ops.quantize_fixed(value, fixed(8, 0))

    assert recorded(build) <= 10 * count


def test_concatenations_of_concatenations_do_not_multiply_nodes():
    def build(ops, x):
        value = ops.concat([ops.quantize_fixed(x, fixed(8, 2)), ops.quantize_fixed(x, fixed(8, 3))], 1)
        for i in range(14):
            value = ops.concat([value, value], 2 + i % 2)
        return ops.quantize_fixed(value, fixed(8, 0))

    assert recorded(build) < 100


# --- onnxruntime


def test_what_is_trimmed_behind_a_transpose_is_not_trimmed_in_front(agree):
    """onnxruntime 1.20 to 1.31 does that where the value in front is an output, and nothing else reads it."""

    def build(ops, x):
        positive = ops.relu(x)
        return positive, ops.quantize_fixed(ops.transpose(positive, (1, 0)), fixed(8, 0))

    fast = agree(build, [[0.25, 1.75], [-1, 3]])
    assert [top.tolist() for top in fast.top] == [[[0.25, 1.75], [0, 3]], [[0, 0], [2, 3]]]


def test_the_least_magnitude_of_an_array():
    assert lowest_magnitude(np.array([0, -0.0], np.float32)) == INF
    assert lowest_magnitude(np.array([3, -0.25, 0, 1], np.float32)) == 0.25
    assert lowest_magnitude(np.array([[INF], [-2]], np.float32)) == 2
    assert lowest_magnitude(np.array([1e-45, 1], np.float32)) == float(np.float32(1e-45))
    assert lowest_magnitude(np.zeros((0, 3), np.float32)) == INF
    assert lowest_magnitude(np.arange(2**21, dtype=np.float32).reshape(2**19, 4)[::-1] + 3) == 3


def test_a_value_without_bounds_is_trimmed_as_the_plain_ops_do_it():
    lowered = MACHINES["all"].lowered(
        lambda ops: {"y": ops.relu(ops.quantize_fixed(ops.input("x", (3,)), fixed(8, 1)))}, assuming=False
    )
    found = Session(lowered.graph, lowered.outputs).run({"x": np.array([NAN, INF, -INF], np.float32)})["y"]
    assert found.tolist() == [63.5, 63.5, 0]
