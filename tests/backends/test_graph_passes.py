"""Each single graph pass: what it rewrites, and that results do not depend on which passes run."""

from collections import Counter

import numpy as np
import pytest

from ristretto_cli.backends.graph_passes.graph_pass import GRAPH_PASSES, all_passes
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.ops import ConvGeometry, Floats, Grid, PoolGeometry

from .conftest import MACHINES, plain_session

BYTES, COARSE, SHORTS = Grid(4, -128, 127), Grid(2, -128, 127), Grid(8, -(2**15), 2**15 - 1)
EIGHT = Floats(mant_bits=3, exp_bits=4)
POOL = PoolGeometry(kernel=(2, 2), stride=(2, 2), pad=(0, 0), ceil=True)
SHAPE = (1, 16, 4, 4)


def conv(ops, x, grid=None):
    weight = (np.arange(16 * x.shape[1]) % 15 - 7).reshape(16, x.shape[1], 1, 1) / 8
    return ops.conv(x, ops.constant(weight.astype(np.float32), grid=grid), None, ConvGeometry.dense(2))


def fixed_net(grid, ops, x):
    """Two convolutions with quantized inputs and outputs, a ReLU, a pooling and a concatenation between them."""
    weights = Grid(3, -128, 127)
    top = ops.quantize_fixed(conv(ops, ops.quantize_fixed(x, grid), weights), grid)
    top = ops.max_pool(ops.relu(top), POOL)
    joined = ops.concat([top, ops.quantize_fixed(conv(ops, top, weights), COARSE)], 1)
    return ops.quantize_fixed(conv(ops, ops.quantize_fixed(joined, grid), weights), grid)


def float_net(ops, x):
    top = ops.quantize_float(conv(ops, ops.quantize_float(x, EIGHT)), EIGHT)
    top = ops.max_pool(ops.relu(top), POOL)
    return ops.quantize_float(conv(ops, ops.quantize_float(top, EIGHT)), EIGHT)


NETS = {
    "8 bits": lambda ops, x: fixed_net(BYTES, ops, x),
    "16 bits": lambda ops, x: fixed_net(SHORTS, ops, x),
    "minifloat": float_net,
}
CHOICES = {
    **{f"only {name}": [name] for name in all_passes()},
    **{f"all but {name}": [other for other in all_passes() if other != name] for name in all_passes()},
    "none": [],
}


def nodes(build, passes, *shapes):
    """How many nodes of which type a graph has after these passes, on a machine with all integer kernels."""

    def record(ops):
        return {"y": build(ops, *[ops.input(f"x{i}", shape) for i, shape in enumerate(shapes)])}

    return Counter(node.op_type for node in MACHINES["all"].lowered(record, passes=passes).model().graph.node)


@pytest.mark.parametrize("machine", ["no integer kernels, no blocks", "bounded and unsigned", "all"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_passes_computes_the_same(choice, net, machine):
    def record(ops):
        return {"y": NETS[net](ops, ops.input("x", SHAPE))}

    x = {"x": np.random.default_rng(0).normal(0, 4, SHAPE).astype(np.float32)}
    plain = OnnxOps()
    expected = plain_session(plain, record(plain)).run(x)["y"]
    found, _ = MACHINES[machine].run(record, x, passes=CHOICES[choice])
    np.testing.assert_array_equal(found["y"], expected)
    assert len(np.unique(expected)) > 10


def test_passes_run_in_their_order():
    orders = [GRAPH_PASSES.get(name).order for name in all_passes()]
    assert orders == sorted(orders)
    assert len(set(orders)) == len(orders)


def test_fold_constants():
    def build(ops, x):
        return ops.mul(x, ops.sqrt(ops.add(ops.constant(2), ops.constant(7))))

    assert nodes(build, [], (1,)) == {"Add": 1, "Sqrt": 1, "Mul": 1}
    assert nodes(build, ["fold_constants"], (1,)) == {"Mul": 1}


def test_share_nodes():
    def build(ops, x):
        return ops.add(ops.relu(x), ops.mul(ops.relu(x), ops.uniform((1,))))

    assert nodes(build, [], (1,))["Relu"] == 2
    assert nodes(build, ["share_nodes"], (1,))["Relu"] == 1


def test_share_nodes_leaves_random_numbers_independent():
    def build(ops):
        return ops.sub(ops.uniform((9,)), ops.uniform((9,)))

    assert nodes(build, ["share_nodes"])["RandomUniform"] == 2


@pytest.mark.parametrize(
    ("second", "rounds"),
    [(BYTES, 1), (SHORTS, 1), (Grid(4, -8, 7), 1), (COARSE, 2)],
    ids=["the same", "finer", "narrower", "coarser"],
)
def test_drop_quantize(second, rounds):
    def build(ops, x):
        return ops.quantize_fixed(ops.quantize_fixed(x, BYTES), second)

    assert nodes(build, [], (1,))["Round"] == 2
    assert nodes(build, ["drop_quantize"], (1,))["Round"] == rounds


def test_quantize_before_concat():
    """One of the two parts is on the grid already, the other is quantized without it."""

    def record(ops):
        x = ops.input("x", SHAPE)
        joined = ops.concat([ops.quantize_fixed(x, BYTES), ops.quantize_fixed(x, COARSE)], 1)
        return {"y": ops.quantize_fixed(joined, BYTES)}

    def last(*passes):
        return MACHINES["all"].lowered(record, passes=passes).model().graph.node[-1].op_type

    assert last("drop_quantize") == "Mul"
    assert last("quantize_before_concat", "drop_quantize") == "Concat"


def test_quantize_before_concat_pools_part_by_part():
    def build(ops, x):
        return ops.max_pool(ops.concat([ops.quantize_fixed(x, BYTES), ops.quantize_fixed(x, COARSE)], 1), POOL)

    assert nodes(build, [], SHAPE)["MaxPool"] == 1
    assert nodes(build, ["quantize_before_concat"], SHAPE)["MaxPool"] == 2


def test_quantize_after_relu():
    def build(ops, x):
        return ops.relu(ops.max_pool(ops.quantize_fixed(x, BYTES), POOL))

    assert nodes(build, [], SHAPE)["Relu"] == 1
    assert nodes(build, ["quantize_after_relu"], SHAPE)["Relu"] == 0


def test_integer_products():
    found = nodes(NETS["8 bits"], ["integer_products"], SHAPE)
    assert (found["QLinearConv"], found["Conv"]) == (3, 0)


def test_scale_products():
    def build(ops, x):
        wide = Grid(3, -(2**19), 2**19 - 1)
        return ops.quantize_fixed(conv(ops, ops.quantize_fixed(x, wide)), wide)

    assert nodes(build, [], (1, 3, 4, 4))["Mul"] == 4
    assert nodes(build, ["scale_products"], (1, 3, 4, 4))["Mul"] == 2  # of the input, and of the output


def test_fuse_minifloats():
    def build(ops, x):
        return ops.quantize_float(ops.relu(ops.quantize_float(x, EIGHT)), EIGHT)

    assert nodes(build, [], (1,))["Where"] >= 4
    assert nodes(build, ["fuse_minifloats"], (1,)) == {"Mul": 2, "Clip": 1, "ThresholdedRelu": 1, "Sub": 1}
