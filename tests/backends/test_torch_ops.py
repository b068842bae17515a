"""The primitives on torch: what they give is what they give elsewhere, and their gradients are Caffe's."""

import math

import numpy as np
import pytest

from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.ops import ConvGeometry, Floats, Grid, PoolGeometry

torch = pytest.importorskip("torch", reason="the torch backend needs torch: pip install 'ristretto-cli[train]'")
torch_ops = pytest.importorskip("ristretto_cli.backends.torch_ops")

NAN, INF = float("nan"), float("inf")
EDGES = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 1e-40, -1e-40, 3e38, -3e38, INF, -INF, NAN, 7.9, -8.1, 2**-8, 1 / 3]
X = (2, 4, 5, 6)  # the shape that random values have, unless a primitive needs another one


def made_ops():
    return torch_ops.TorchOps(np.random.default_rng(0))


def on_torch(build, *arrays):
    ops = made_ops()
    with torch.no_grad():
        values = build(ops, *[ops.constant(np.asarray(array, np.float32)) for array in arrays])
    return [value.numpy() for value in (values if isinstance(values, tuple) else (values,))]


def on_onnx(build, *arrays):
    ops = OnnxOps()
    feeds = {f"x{i}": np.asarray(array, np.float32) for i, array in enumerate(arrays)}
    values = build(ops, *[ops.input(name, array.shape) for name, array in feeds.items()])
    outputs = {str(i): value for i, value in enumerate(values if isinstance(values, tuple) else (values,))}
    return list(lower(ops.graph, outputs).session(threads=1).run(feeds).values())


def gradient(build, *arrays):
    """The gradients of the sum of build(ops, *values), by each of the values."""
    ops = made_ops()
    values = [torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in arrays]
    build(ops, *values).sum().backward()
    return [None if value.grad is None else value.grad.tolist() for value in values]


def check(build, *shapes, low=-3.0, high=3.0, exact=False):
    rng = np.random.default_rng(1)
    arrays = [rng.uniform(low, high, shape).astype(np.float32) for shape in shapes]
    agree(build, *arrays, exact=exact)


def agree(build, *arrays, exact=False):
    for found, expected in zip(on_torch(build, *arrays), on_onnx(build, *arrays), strict=True):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype == np.float32
        if exact:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum"])
def test_two_operands_broadcast_and_agree(name):
    check(lambda ops, a, b: getattr(ops, name)(a, b), X, (4, 1, 1), exact=True)
    pairs = np.array([(a, b) for a in EDGES for b in EDGES], np.float32)
    agree(lambda ops, a, b: getattr(ops, name)(a, b), pairs[:, 0], pairs[:, 1], exact=True)


@pytest.mark.parametrize("name", ["abs", "floor", "round", "relu", "detach"])
def test_what_is_exact_agrees_on_edges(name):
    agree(lambda ops, x: getattr(ops, name)(x), EDGES, exact=True)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "softplus"])
def test_one_operand_agrees(name):
    check(lambda ops, x: getattr(ops, name)(x), X)


@pytest.mark.parametrize("name", ["log", "log2", "sqrt"])
def test_one_operand_above_0_agrees(name):
    check(lambda ops, x: getattr(ops, name)(x), X, low=1e-3)


def test_the_binary_logarithm_of_every_power_of_two_is_exact():
    exponents = np.arange(-149, 128)
    powers = (2.0 ** exponents.astype(np.float64)).astype(np.float32)
    assert on_torch(lambda ops, x: ops.log2(x), powers)[0].tolist() == exponents.tolist()


def test_powers_agree():
    check(lambda ops, x: ops.pow(x, ops.constant(-0.75)), X, low=0.5)
    check(lambda ops, x: ops.pow(ops.constant(2.0), x), X)


def test_comparisons_choose_alike():
    for name in ("equal", "less", "greater_equal"):

        def chosen(ops, a, b, name=name):
            truth = getattr(ops, name)(a, b)
            one, zero = ops.constant(1.0), ops.constant(0.0)
            return ops.where(truth, one, zero), ops.where(truth, a, b), ops.where(truth, zero, one)

        pairs = np.array([(a, b) for a in EDGES for b in EDGES], np.float32)
        agree(chosen, pairs[:, 0], pairs[:, 1], exact=True)


@pytest.mark.parametrize(("low", "high"), [(-2.0, 3.0), (0.0, 6.0), (-INF, 1.0)])
def test_clip_agrees_and_makes_nan_the_upper_bound(low, high):
    agree(lambda ops, x: ops.clip(x, low, high), EDGES, exact=True)
    assert on_torch(lambda ops, x: ops.clip(x, low, high), [NAN])[0].tolist() == [high]


@pytest.mark.parametrize(
    "grid", [Grid(4, -128, 127), Grid(-3, -2, 1), Grid(40, -(2**31), 2**31 - 1), Grid(200, -1, 0), Grid(4, 0, 255)]
)
def test_trims_to_grids_are_the_same_bits(grid):
    x = np.concatenate([EDGES, np.random.default_rng(2).normal(0, 9, 5000)]).astype(np.float32)
    agree(lambda ops, v: ops.quantize_fixed(v, grid), x, exact=True)


@pytest.mark.parametrize("floats", [Floats(3, 4), Floats(2, 5), Floats(7, 8), Floats(0, 3), Floats(23, 8)])
def test_trims_to_floats_are_the_same_bits(floats):
    x = np.concatenate([EDGES, np.random.default_rng(2).normal(0, 9, 5000)]).astype(np.float32)
    agree(lambda ops, v: ops.quantize_float(v, floats), x, exact=True)


@pytest.mark.parametrize("number_format", [Fixed(4, 2), Minifloat(2, 4), PowerOfTwo(-8, -1)])
def test_stochastic_rounding_leaves_what_the_format_has_and_moves_the_rest_either_way(number_format):
    ops = made_ops()
    on_it = number_format.quantize(ops, torch.linspace(-1, 1, 65), Rounding.NEAREST)
    np.testing.assert_array_equal(number_format.quantize(ops, on_it, Rounding.STOCHASTIC), on_it)
    between = torch.full((10_000,), 0.3)
    trimmed = number_format.quantize(ops, between, Rounding.STOCHASTIC)
    assert len(trimmed.unique()) == 2
    if not isinstance(number_format, PowerOfTwo):  # which rounds exponents
        assert float(trimmed.mean()) == pytest.approx(0.3, abs=0.01)


SHAPES = [
    lambda ops, x: ops.reshape(x, (8, 30)),
    lambda ops, x: ops.transpose(x, (3, 1, 0, 2)),
    lambda ops, x: ops.expand(x, (3, *X)),
    lambda ops, x: ops.concat([x, x, ops.slice(x, 2, 1, 3)], 2),
    lambda ops, x: ops.slice(x, -1, 2, 5),
    lambda ops, x: ops.pad(x, (0, 1, 2, 0), (1, 0, 0, 3), 7.0),
    lambda ops, x: ops.unfold(x, (2, 3), ConvGeometry(stride=(1, 2), pad=(1, 0), dilation=(2, 1))),
    lambda ops, x: ops.max(x, [1, 3]),
    lambda ops, x: ops.sum(x, []),
    lambda ops, x: ops.top_k(x, 3, 1),
    lambda ops, x: ops.expand(ops.constant(2.5), (2, 2)),
]


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_moving_values_agrees(number):
    check(SHAPES[number], X, exact=True)


SUMS = [
    lambda ops, x: ops.sum(x, [1, 2, 3]),
    lambda ops, x: ops.mean(x, [0, 2]),
    lambda ops, x: ops.mean(x, []),
    lambda ops, x: ops.softmax(x, 1),
    lambda ops, x: ops.log_softmax(x, 3, 0.1),
    lambda ops, x: ops.standardize(x, 1e-3),
    lambda ops, x: ops.lrn(x, size=3, alpha=0.5, beta=0.75, k=2.0),
    lambda ops, x: ops.lrn(x, size=9, alpha=0.5, beta=0.75, k=1.0),
    lambda ops, x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    lambda ops, x: ops.resize(x, (7, 3)),
    lambda ops, x: ops.resize(x, (1, 1)),
]


@pytest.mark.parametrize("number", range(len(SUMS)))
def test_sums_agree(number):
    check(SUMS[number], X)


def test_of_equals_top_k_has_the_larger_index_first():
    values, places = on_torch(lambda ops, x: ops.top_k(x, 3, 1), [[1, 5, 5, 0, 5]])
    assert (values.tolist(), places.tolist()) == ([[5, 5, 5]], [[4, 2, 1]])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_picks_alike(axis):
    agree(lambda ops, x, i: ops.gather(x, i, axis), np.arange(24).reshape(3, 4, 2), [[0.9, 1, -0.5], [0, 1.9, 1]])


@pytest.mark.parametrize("index", [-1, 3, NAN, INF])
def test_an_index_that_is_out_of_range_names_the_layer(index):
    ops = made_ops()
    with ops.scope("block/pick"), pytest.raises(RistrettoError) as refused:
        ops.gather(ops.constant(np.zeros(3)), ops.constant(np.array([index])), 0)
    assert str(refused.value).startswith(
        'layer "block/pick": an index into 3 entries is negative, too large or not a num'
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
def test_filters_agree(axes, group):
    extent, kernel = (7, 6, 5)[:axes], (3, 2, 2)[:axes]
    where = ConvGeometry((2, 1, 1)[:axes], (1, 0, 2)[:axes], (1, 2, 1)[:axes], group)
    check(lambda ops, x, w, b: ops.conv(x, w, b, where), (2, 4, *extent), (6, 4 // group, *kernel), (6,), high=0)
    check(lambda ops, x, w: ops.deconv(x, w, None, where), (2, 4, *extent), (4, 6 // group, *kernel), high=0)
    check(lambda ops, x, w, b: ops.linear(x, w, b), (3, 4), (5, 4), (5,))


POOLS = [
    PoolGeometry(kernel=(2, 2), stride=(2, 2), pad=(0, 0), ceil=True),
    PoolGeometry(kernel=(3, 3), stride=(2, 2), pad=(1, 1), ceil=True),
    PoolGeometry(kernel=(3, 2), stride=(2, 3), pad=(2, 1), ceil=True),  # a padding beyond half the kernel
    PoolGeometry(kernel=(3, 2), stride=(2, 3), pad=(2, 1), ceil=False),
    PoolGeometry(kernel=(1, 1), stride=(3, 4), pad=(0, 0), ceil=True),  # windows outside
    PoolGeometry(kernel=(1, 2), stride=(4, 5), pad=(0, 0), ceil=True),
    PoolGeometry(kernel=(5, 6), stride=(1, 1), pad=(0, 0), ceil=True),
]


@pytest.mark.parametrize("geometry", POOLS)
@pytest.mark.parametrize("axes", [1, 2])
def test_pooling_agrees(geometry, axes):
    one = PoolGeometry(geometry.kernel[:axes], geometry.stride[:axes], geometry.pad[:axes], geometry.ceil)
    # Few different values, so that many are equal.
    x = np.random.default_rng(3).integers(-2, 3, X[: 2 + axes]).astype(np.float32)
    agree(lambda ops, v: ops.max_pool(v, one), x, exact=True)
    agree(lambda ops, v: ops.max_pool_with_index(v, one), x, exact=True)
    agree(lambda ops, v: ops.ave_pool(v, one), x)


def test_regions_agree():
    x = np.random.default_rng(4).normal(size=(2, 3, 6, 7)).astype(np.float32)
    rois = [[0, 0, 0, 13, 11], [1, 3, 2, 9, 4], [1, -8, -6, 2, 3], [0, 12, 10, 30, 30], [0, 5, 5, 2, 1]]
    agree(lambda ops, v, r: ops.roi_pool(v, r, extent=(2, 3), spatial_scale=0.5), x, rois, exact=True)
    places = [[[[3, 0, NAN], [8, -1, 5]]]]
    agree(lambda ops, v, p: ops.unpool(v, p, (2, 4)), [[[[7, 8, 9], [1, 2, 3]]]], places, exact=True)


def test_nms_agrees():
    rng = np.random.default_rng(5)
    low = rng.uniform(0, 8, (2, 1, 20, 2))
    boxes = np.concatenate([low, low + rng.uniform(-1, 6, low.shape)], 3)
    scores = np.round(rng.uniform(0, 1, (2, 3, 20)), 1)  # with many equals
    settings = {"top_k": 12, "min_score": 0.2, "max_overlap": 0.4}
    agree(lambda ops, b, s: ops.nms(b, s, **settings), boxes, scores, exact=True)


def test_random_numbers_start_from_the_generator():
    first, same = (torch_ops.TorchOps(np.random.default_rng(7)).uniform((3, 4)) for _ in range(2))
    assert first.tolist() == same.tolist()
    other = torch_ops.TorchOps(np.random.default_rng(8)).uniform((3, 4))
    assert first.tolist() != other.tolist()
    assert 0 <= float(first.min()) <= float(first.max()) < 1


# gradients


def test_straight_through_gives_the_trimmed_and_passes_the_gradient():
    assert gradient(lambda ops, x: ops.straight_through(x, ops.round(x)), [0.4, 99.0]) == [[1, 1]]
    x = [0.4, 2.0, -2.0, 2.5, -3.0, NAN]
    assert gradient(lambda ops, x: ops.straight_through(x, ops.round(x), within=(-2.0, 2.0)), x) == [[1, 1, 1, 0, 0, 0]]


def test_no_gradient_goes_through_detach():
    assert gradient(lambda ops, x: ops.mul(x, ops.detach(x)), [3.0]) == [[3]]


def test_at_its_kink_relu_has_no_gradient_and_abs_none():
    assert gradient(lambda ops, x: ops.relu(x), [-1.0, 0.0, 2.0]) == [[0, 0, 1]]
    assert gradient(lambda ops, x: ops.abs(x), [-1.0, 0.0, 2.0]) == [[-1, 0, 1]]


def test_clip_passes_the_gradient_on_its_bounds():
    assert gradient(lambda ops, x: ops.clip(x, -1, 2), [-1.5, -1.0, 0.0, 2.0, 2.5]) == [[0, 1, 1, 1, 0]]


def test_of_equals_the_first_operand_of_maximum_gets_the_gradient():
    assert gradient(lambda ops, a, b: ops.maximum(a, b), [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == [[0, 1, 1], [1, 0, 0]]
    assert gradient(lambda ops, a, b: ops.maximum(a, b), [[1.0, 3.0]], [[2.0]]) == [[[0, 1]], [[1]]]


def test_of_equals_the_first_cell_of_a_window_gets_the_gradient():
    geometry = PoolGeometry(kernel=(2, 2), stride=(2, 2), pad=(0, 0), ceil=True)
    assert gradient(lambda ops, x: ops.max_pool(x, geometry), [[[[1.0, 2.0], [2.0, 2.0]]]]) == [[[[[0, 1], [0, 0]]]]]


def test_the_root_of_0_has_no_gradient():
    assert gradient(lambda ops, x: ops.sqrt(x), [0.0, 4.0]) == [[0, 0.25]]


def test_the_logarithm_of_a_vanishing_probability_has_the_gradient_of_softmax():
    logs = made_ops().log_softmax(torch.tensor([[0.0, 200.0]]), 1, 1e-20)
    assert logs.tolist() == [[pytest.approx(math.log(1e-20)), 0]]
    first = gradient(lambda ops, x: ops.slice(ops.log_softmax(x, 1, 1e-20), 1, 0, 1), [[0.0, 200.0]])
    assert first == [[[1, -1]]]


def test_lrn_has_the_gradient_of_its_formula():
    x = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    settings = {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 2.0}
    assert torch.autograd.gradcheck(lambda v: made_ops().lrn(v, **settings), x)


@pytest.mark.parametrize("channels_first", [True, False])
def test_a_scaled_batch_has_the_gradient_of_its_parts(channels_first):
    """With a scale for each channel it is computed in one go."""
    rng = torch.Generator().manual_seed(0)
    shape = (3, 1, 1) if channels_first else (1, 3, 1, 1)
    arrays = [torch.randn(size, generator=rng).numpy() for size in ((4, 3, 2, 2), shape, shape)]
    weights = torch.randn(4, 3, 2, 2, generator=rng)

    def parts(ops, x, scale, shift):
        return ops.mul(ops.add(ops.mul(ops.standardize(x, 0.1)[0], scale), shift), weights)

    def joined(ops, x, scale, shift):
        return ops.mul(ops.affine(ops.standardize(x, 0.1)[0], scale, shift), weights)

    for found, expected in zip(gradient(joined, *arrays), gradient(parts, *arrays), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
