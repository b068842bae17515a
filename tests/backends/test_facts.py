"""Facts about the tensors of a graph: bounds, and constants that are computed when the graph is built."""

import math

import numpy as np
import pytest

from ristretto_cli.backends.exact_kernels import NONE
from ristretto_cli.backends.facts import Facts
from ristretto_cli.backends.graph_passes.graph_pass import Target
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.ops import ConvGeometry, Grid, PoolGeometry

NAN, INF = float("nan"), float("inf")
ONE_CELL = ConvGeometry.dense(2)
POOL = PoolGeometry(kernel=(2, 2), stride=(2, 2), pad=(0, 0), ceil=True)
# Rounded up, a last window starts after 2x2.
OUTSIDE = PoolGeometry(kernel=(1, 1), stride=(3, 3), pad=(0, 0), ceil=True)


def bound(build, most=4.0, shape=(1, 2, 2, 2)):
    """The bound of build(ops, x), for an x whose elements are not larger than `most`."""
    ops = OnnxOps()
    return Facts(ops.graph, most)[build(ops, ops.input("x", shape))].bound


def folded(build, shape=(1, 2, 2, 2)):
    """The outputs of build(ops, x) as arrays, where they are constants."""
    ops = OnnxOps()
    lowered = lower(ops.graph, build(ops, ops.input("x", shape)), ["fold_constants"])
    return {name: lowered.graph.array(tensor) for name, tensor in lowered.outputs.items()}


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda ops, x: ops.add(x, ops.constant(-3)), 7),
        (lambda ops, x: ops.sub(x, ops.constant(3)), 7),
        (lambda ops, x: ops.mul(x, ops.constant([-2, 1])), 8),
        (lambda ops, x: ops.div(x, ops.constant([-0.5, 2])), 8),
        (lambda ops, x: ops.maximum(x, ops.constant(9)), 9),
        (lambda ops, x: ops.abs(x), 4),
        (lambda ops, x: ops.relu(x), 4),
        (lambda ops, x: ops.floor(x), 5),
        (lambda ops, x: ops.round(x), 5),
        (lambda ops, x: ops.clip(x, -3, 2), 3),
        (lambda ops, x: ops.quantize_fixed(x, Grid(1, -8, 7)), 4),
        (lambda ops, x: ops.sigmoid(x), 1),
        (lambda ops, x: ops.tanh(x), 1),
        (lambda ops, x: ops.softmax(x, 1), 1),
        (lambda ops, x: ops.where(ops.less(x, ops.constant(0)), ops.constant(-5), x), 5),
        (lambda ops, x: ops.reshape(x, (8,)), 4),
        (lambda ops, x: ops.transpose(x, (3, 2, 1, 0)), 4),
        (lambda ops, x: ops.slice(x, 1, 0, 1), 4),
        (lambda ops, x: ops.concat([x, ops.mul(x, ops.constant(2))], 1), 8),
        (lambda ops, x: ops.max_pool(x, POOL), 4),
        (lambda ops, x: ops.ave_pool(x, POOL), 4),
        (lambda ops, x: ops.ave_pool(x, OUTSIDE), 4),  # 0 where a window has a count below 0
        # two channels of magnitudes up to 4, times weights up to 3, and a bias of 1
        (lambda ops, x: ops.conv(x, ops.constant([[[[3]], [[-1]]]]), ops.constant([1]), ONE_CELL), 25),
        (lambda ops, x: ops.linear(ops.reshape(x, (1, 8)), ops.constant([[1] * 8]), None), 32),
    ],
)
def test_bounds_follow_from_magnitudes_up_to_4(build, expected):
    assert bound(build) == expected


@pytest.mark.parametrize(
    "build",
    [
        lambda ops, x: ops.div(x, ops.constant([0, 1])),
        lambda ops, x: ops.div(ops.constant(1), x),
        lambda ops, x: ops.mul(x, ops.constant(INF)),
        lambda ops, x: ops.add(x, ops.constant(NAN)),
        lambda ops, x: ops.mul(x, ops.constant(2.0**118)),
        lambda ops, x: ops.pow(x, ops.constant(2)),
        lambda ops, x: ops.exp(x),
        lambda ops, x: ops.log(x),
        lambda ops, x: ops.sqrt(x),
        lambda ops, x: ops.matmul(x, x),
        lambda ops, x: ops.sum(x, (1,)),
        lambda ops, x: ops.deconv(x, ops.constant([[[[1]]], [[[1]]]]), None, ONE_CELL),
        lambda ops, x: ops.max_pool(x, OUTSIDE),  # -FLT_MAX
        lambda ops, x: ops.clip(x, -INF, 2),
        lambda ops, x: ops.quantize_fixed(x, Grid(-200, -8, 7)),
        lambda ops, x: ops.conv(x, ops.constant([[[[NAN]], [[1]]]]), None, ONE_CELL),
        lambda ops, x: ops.conv(x, ops.constant([[[[1]], [[1]]]]), ops.constant([-INF]), ONE_CELL),
    ],
)
def test_nothing_is_claimed_of_what_can_be_infinite_or_is_not_looked_at(build):
    assert bound(build) is None


def test_of_inputs_that_may_be_anything_a_trim_alone_makes_something_known():
    def relu(ops, x):
        return ops.relu(ops.sigmoid(x))

    assert bound(relu, None) is None
    assert bound(lambda ops, x: ops.quantize_fixed(relu(ops, x), Grid(0, -128, 127)), None) == 128
    assert bound(lambda ops, x: ops.clip(relu(ops, x), -1, 6), None) == 6


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"alpha": 1.0, "beta": 1.0, "k": 1.0}, 8),  # k may lose half of itself to rounding
        ({"alpha": 1.0, "beta": 0.0, "k": 2.0}, 4),
        ({"alpha": -1.0, "beta": 1.0, "k": 1.0}, None),
        ({"alpha": 1.0, "beta": -1.0, "k": 1.0}, None),
        ({"alpha": 1.0, "beta": 1.0, "k": 0.0}, None),
        ({"alpha": INF, "beta": 1.0, "k": 1.0}, None),
        ({"alpha": 1.0, "beta": INF, "k": 1.0}, None),
        ({"alpha": 1.0, "beta": 1.0, "k": NAN}, None),
        ({"alpha": 1.0, "beta": 400.0, "k": 1e-30}, None),
        ({"alpha": 1e9, "beta": 1.0, "k": 1.0}, None),
    ],
)
def test_normalized_values_are_known_where_the_squares_cannot_swallow_k(settings, expected):
    assert bound(lambda ops, x: ops.lrn(x, size=3, **settings)) == expected


def test_onnxruntimes_running_sum_of_squares_swallows_k_where_they_are_large():
    """If this NaN counted as finite, a quantization would keep it."""

    def build(ops, x):
        return ops.lrn(x, size=3, alpha=0.5, beta=0.75, k=1.0)

    assert bound(build, 2.0**18, (1, 4, 1, 1)) is None
    ops = OnnxOps()
    top = ops.clip(build(ops, ops.input("x", (1, 4, 1, 1))), -1, 7)
    target = Target(NONE, has_blocks=False, bound_of_inputs=2.0**18)
    x = np.array([262136, 0, 0, 0], np.float32).reshape(1, 4, 1, 1)
    assert np.isfinite(lower(ops.graph, {"y": top}, (), target).session().run({"x": x})["y"]).all()


def some_of_constants(ops, _):
    two, four = ops.constant(2), ops.constant([4, 9])
    return {
        "add": ops.add(two, four),
        "sub": ops.sub(two, four),
        "mul": ops.mul(two, four),
        "div": ops.div(four, two),
        "maximum": ops.maximum(two, four),
        "sqrt": ops.sqrt(four),
        "abs": ops.abs(ops.constant([-1.5, 2.5])),
        "round": ops.round(ops.constant([-1.5, 2.5])),
        "floor": ops.floor(ops.constant([-1.5, 2.5])),
        "where": ops.where(ops.less(four, ops.constant(5)), two, four),
        "reshape": ops.reshape(four, (2, 1)),
    }


def test_constants_are_computed_when_the_graph_is_built():
    assert {name: array.tolist() for name, array in folded(some_of_constants).items()} == {
        "add": [6, 11],
        "sub": [-2, -7],
        "mul": [8, 18],
        "div": [2, 4.5],
        "maximum": [4, 9],
        "sqrt": [2, 3],
        "abs": [1.5, 2.5],
        "round": [-2, 2],
        "floor": [-2, 2],
        "where": [2, 9],
        "reshape": [[4], [9]],
    }


def test_constants_of_many_elements_are_left_to_onnxruntime():
    def many(ops, _):
        return ops.mul(ops.constant(np.ones(2**16 + 1, np.float32)), ops.constant(2))

    assert folded(lambda ops, x: {"y": many(ops, x)}) == {"y": None}
    assert bound(many) == 2


def test_a_division_by_zero_of_constants_is_silent():
    assert math.isinf(folded(lambda ops, x: {"y": ops.div(ops.constant(1), ops.constant(0))})["y"])


@pytest.mark.parametrize(("most", "types"), [(4.0, ["Clip"]), (None, ["Less", "Max", "Where"])])
def test_saturating_what_can_be_nan_takes_more_nodes(most, types):
    ops = OnnxOps()
    top = ops.clip(ops.input("x", (2,)), -1, 1)
    model = lower(ops.graph, {"y": top}, (), Target(NONE, has_blocks=False, bound_of_inputs=most)).model()
    assert sorted(node.op_type for node in model.graph.node) == types
