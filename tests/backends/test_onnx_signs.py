"""Values that are never negative: they are trimmed to bytes that begin at 0, whose products fit 16 bits in pairs."""

import numpy as np
import pytest

from ristretto_cli.backends.exact_kernels import IntegerKernels
from ristretto_cli.backends.facts import Facts
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_integers import ALL_KERNELS, Weights
from ristretto_cli.ops import ConvGeometry, Grid, PoolGeometry

from .conftest import Machine

BYTES = Grid(3, -128, 127)
IMAGE = (1, 16, 4, 4)


def facts_of(ops, tensor):
    return Facts(ops.graph, bound_of_inputs=100.0)[tensor]


def two_images(ops):
    return ops.input("x", IMAGE), ops.input("y", IMAGE)


POOL = PoolGeometry(kernel=(2, 2), stride=(2, 2), pad=(0, 0), ceil=True)
ALWAYS = {
    "relu": lambda ops, x, y: ops.relu(x),
    "abs": lambda ops, x, y: ops.abs(x),
    "exp": lambda ops, x, y: ops.exp(x),
    "sqrt": lambda ops, x, y: ops.sqrt(x),
    "sigmoid": lambda ops, x, y: ops.sigmoid(x),
    "softmax": lambda ops, x, y: ops.softmax(x, 1),
    "square": lambda ops, x, y: ops.mul(x, x),
    "clip": lambda ops, x, y: ops.clip(x, 0.0, 6.0),
    "maximum": lambda ops, x, y: ops.maximum(x, ops.constant(0.0)),
    "unsigned": lambda ops, x, y: ops.quantize_fixed(x, Grid(0, 0, 255)),
}
IF_BOTTOMS_ARE = {
    "add": lambda ops, x, y: ops.add(x, y),
    "mul": lambda ops, x, y: ops.mul(x, y),
    "div": lambda ops, x, y: ops.div(x, ops.constant(3.0)),
    "pow": lambda ops, x, y: ops.pow(x, y),
    "round": lambda ops, x, y: ops.round(x),
    "floor": lambda ops, x, y: ops.floor(x),
    "reshape": lambda ops, x, y: ops.reshape(x, (16, 16)),
    "transpose": lambda ops, x, y: ops.transpose(x, (0, 2, 3, 1)),
    "slice": lambda ops, x, y: ops.slice(x, 1, 3, 9),
    "concat": lambda ops, x, y: ops.concat([x, y], 1),
    "max pooling": lambda ops, x, y: ops.max_pool(x, POOL),
    "average pooling": lambda ops, x, y: ops.ave_pool(x, POOL),
    "lrn": lambda ops, x, y: ops.lrn(x, size=3, alpha=0.5, beta=0.75, k=1.0),
    "trim": lambda ops, x, y: ops.quantize_fixed(x, BYTES),
    "where": lambda ops, x, y: ops.where(ops.less(x, y), x, y),
    "minimum of two": lambda ops, x, y: ops.maximum(x, y),
}


@pytest.mark.parametrize("name", [*ALWAYS, *IF_BOTTOMS_ARE])
def test_signs_follow_through_primitives(name):
    ops = OnnxOps()
    x, y = two_images(ops)
    build = (ALWAYS | IF_BOTTOMS_ARE)[name]
    assert facts_of(ops, build(ops, x, y)).never_negative is (name in ALWAYS)
    assert facts_of(ops, build(ops, ops.relu(x), ops.relu(y))).never_negative


def test_a_constant_is_known_by_its_least_element():
    ops = OnnxOps()
    assert facts_of(ops, ops.constant(np.array([3.0, -1.5], np.float32))).low == -1.5
    assert facts_of(ops, ops.constant(np.array([3.0, 0.0], np.float32))).never_negative
    assert not facts_of(ops, ops.constant(np.array([3.0, float("nan")], np.float32))).never_negative


def test_what_is_at_least_one_has_negative_powers_of_at_most_one():
    ops = OnnxOps()
    x, _ = two_images(ops)
    base = ops.add(ops.mul(x, x), ops.constant(1.0))
    assert facts_of(ops, base).low == 1.0
    assert facts_of(ops, ops.pow(base, ops.constant(-0.75))).bound == 1.0
    assert facts_of(ops, ops.pow(base, ops.constant(0.75))).bound is None
    assert facts_of(ops, ops.pow(ops.mul(x, x), ops.constant(-0.75))).bound is None


def test_a_window_behind_the_image_takes_the_sign_away():
    """Caffe fills it with the lowest float32."""
    ops = OnnxOps()
    x, _ = two_images(ops)
    x = ops.slice(x, 2, 0, 2)  # windows of one cell begin at 0 and 3, and there are cells 0 and 1
    top = ops.max_pool(ops.relu(x), PoolGeometry(kernel=(1, 1), stride=(3, 3), pad=(0, 0), ceil=True))
    assert not facts_of(ops, top).never_negative


@pytest.mark.parametrize("rectify", ["relu", "abs", "square"])
def test_bytes_of_what_is_never_negative_begin_at_zero(agree, rectify):
    def build(ops, x):
        trimmed = ops.quantize_fixed(ALWAYS[rectify](ops, x, x), BYTES)
        weight = ops.constant(np.full((16, 16, 1, 1), -127 / 128, np.float32), grid=Grid(7, -128, 127))
        top = ops.conv(trimmed, weight, None, ConvGeometry.dense(2))
        return ops.quantize_fixed(top, Grid(-1, -128, 127))

    agree(build, np.random.default_rng(0).normal(0, 6, IMAGE).astype(np.float32))
    kernels = IntegerKernels.of([k for k in ALL_KERNELS if k.weights is Weights.SIGNED_BOUNDED])
    model = Machine(kernels, True).lowered(lambda ops: {"y": build(ops, ops.input("x", IMAGE))}).model()
    (product,) = [node for node in model.graph.node if node.op_type == "QLinearConv"]
    zero_point = next(t for t in model.graph.initializer if t.name == product.input[2])
    assert zero_point.raw_data == b"\0"


def test_more_bits_than_a_byte_has_keep_their_sign(agree):
    """QuantizeLinear makes 16-bit integers in one pass, but only of the whole signed format."""

    def build(ops, x):
        return ops.quantize_fixed(ops.relu(x), Grid(8, -(2**15), 2**15 - 1))

    assert agree(build, [[-1.5, 0.3, 200.0]]).nodes == {"Relu": 1, "QuantizeLinear": 1, "DequantizeLinear": 1}
