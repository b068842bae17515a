"""Products of integers in eight bits: onnxruntime's QLinearConv and QGemm, where they are exact.

A value on a grid of eight bits is stored as unsigned bytes, each 128 more than the multiple of the grid's step that
it stands for. Sums of products are int32; they are scaled to the top's grid in float32 and rounded half to even. All
scales are powers of two, so nothing else is rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from onnx import TensorProto

from ristretto_cli.backends.onnx_graph import Graph, Node
from ristretto_cli.ops import AnyArray, Array, Grid, Shape

ZERO = 128  # the byte that stands for 0
_EXACT = 2**24  # float32 holds all integers up to this one
_MOST_SHIFT = 60  # bits; scales of larger magnitude could leave float32's range
MOST_STEPS_BITS = 15  # between grids of bytes: float32 holds such multiples of bytes, and int32 what is rounded of them
_ROWS = 2**20  # elements of a weight that are looked at in one go


@dataclass(frozen=True)
class Product:
    """A convolution or an inner product of a value with constants, (C', ...) and (C').

    op: "Conv" or "Gemm". steps: the grid of what is multiplied. attributes: those of the ONNX node.
    """

    op: str
    steps: Grid
    weight: Array
    weight_grid: Grid
    bias: Array | None
    shape: Shape
    attributes: dict[str, Any]

    @property
    def unit_bits(self) -> int:
        """The sums are multiples of 2^-this."""
        return self.steps.frac_bits + self.weight_grid.frac_bits

    def integer_form(self, grid: Grid) -> IntegerForm | None:
        """How it is computed on integers with a top on this grid of up to eight bits; None where that is not exact."""
        if abs(self.unit_bits - grid.frac_bits) > _MOST_SHIFT:
            return None
        low = math.ldexp(float(self.weight.min(initial=0)), self.weight_grid.frac_bits)
        high = math.ldexp(float(self.weight.max(initial=0)), self.weight_grid.frac_bits)
        if low < -128 or high > 127 or len(self.weight.shape) not in (2, 4):
            return None
        form = IntegerForm(self, grid)
        return form if form.is_exact else None


@dataclass(frozen=True)
class IntegerForm:
    """A Product whose top is rounded to a grid, with all of it in integers."""

    product: Product
    grid: Grid

    @property
    def _dropped_bits(self) -> int:
        """How many bits of the sums are rounded away."""
        return self.product.unit_bits - self.grid.frac_bits

    @cached_property
    def weight(self) -> AnyArray:
        """The weights as int8 multiples of their grid's step."""
        scaled = np.empty(self.product.weight.shape, np.int8)
        for rows in chunks(self.product.weight):
            scaled[rows] = np.ldexp(self.product.weight[rows], self.product.weight_grid.frac_bits)
        return scaled

    @cached_property
    def _bias(self) -> AnyArray:
        """The bias in units of the sums, float64: exact, but perhaps not whole."""
        channels = self.product.weight.shape[0]
        bias = np.zeros(channels) if self.product.bias is None else self.product.bias.astype(np.float64)
        return np.ldexp(bias, self.product.unit_bits)

    @property
    def bias(self) -> AnyArray:
        """The bias as int32, rounded down where it is no multiple of the unit."""
        return np.floor(self._bias).astype(np.int32)

    @property
    def rest(self) -> AnyArray:
        """For each channel whether its bias is more than that."""
        return np.asarray(self._bias != np.floor(self._bias))

    @cached_property
    def is_exact(self) -> bool:
        """Whether no sum is rounded before it is rounded to the grid."""
        if not np.isfinite(self._bias).all():
            return False
        largest = max(-self.product.steps.low, self.product.steps.high)
        sums = np.concatenate(
            [
                np.abs(self.weight[rows].astype(np.int16)).reshape(self.weight[rows].shape[0], -1).sum(1, np.int64)
                for rows in chunks(self.weight)
            ]
        )
        most = float((sums * largest + np.abs(self._bias)).max(initial=0.0)) + 1
        # Sums that float32 cannot hold do no harm where they saturate anyway.
        saturated = math.ldexp(max(-self.grid.low, self.grid.high) + 1, self._dropped_bits)
        return most < 2**31 and (most < _EXACT or saturated <= _EXACT)

    @property
    def suits_rectified(self) -> bool:
        """Whether it is also exact for what is above 0 if biases have rests: see `record`."""
        ties_end = math.ldexp(max(-self.grid.low, self.grid.high) + 1, self._dropped_bits)
        return self._dropped_bits >= 1 and ties_end <= _EXACT / 4

    def record(self, graph: Graph, read: Node) -> Node:
        """The node that makes the top's bytes of the bottom's.

        A rest of a bias is less than the unit of the sums. It matters only for sums that lie just between two
        numbers of the grid: with it they are above the middle. A scale that is one last place larger lifts them
        there if they are positive, and moves nothing else past a middle.
        """
        one = np.float32(1)
        scales = np.where(self.rest, np.nextafter(one, np.float32(2)), one)
        scale = graph.constant(scales if self.rest.any() else np.asarray(one))
        zero, unit = graph.constant(np.uint8(ZERO)), graph.constant(np.asarray(one))
        # With several scales there must be as many zeros.
        weight_zero = graph.constant(np.zeros(scales.shape if self.rest.any() else (), np.int8))
        weight = graph.deferred(self.weight.shape, lambda: self.weight)
        operands = [read, unit, zero, weight, scale, weight_zero]
        step = graph.constant(np.asarray(math.ldexp(1.0, self._dropped_bits), np.float32))
        bias = graph.constant(self.bias)
        shape, attributes = [self.product.shape], self.product.attributes
        if self.product.op == "Conv":
            return graph.record("QLinearConv", [*operands, step, zero, bias], shape, **attributes)[0]
        return graph.record("QGemm", [*operands, bias, step, zero], shape, domain="com.microsoft", transB=1)[0]


def record_bytes_on_grid(graph: Graph, stored: Node, shift: int) -> Node:
    """The node that brings bytes onto a grid whose step is 2^-shift times theirs, cut off at the ends of a byte.

    onnxruntime's fastest kernel for that adds two values; the other one is 0 here.
    """
    if shift == 0:
        return stored
    one, zero, none = graph.constant(np.float32(1)), graph.constant(np.uint8(ZERO)), graph.constant(np.uint8(0))
    step = graph.constant(np.float32(math.ldexp(1.0, -shift)))
    operands = [stored, one, zero, none, one, none, step, zero]
    return graph.record("QLinearAdd", operands, [stored.shape], domain="com.microsoft")[0]


def chunks(array: AnyArray) -> list[slice]:
    """Slices of the first axis, of no more elements than are worth copying."""
    rows = max(1, _ROWS // max(1, math.prod(array.shape[1:])))
    return [slice(start, start + rows) for start in range(0, array.shape[0], rows)]


@lru_cache(maxsize=1)
def integers_are_exact() -> bool:
    """Whether this machine's integer kernels compute what they should.

    Processors with AVX2 but without VNNI add pairs of products in 16 bits, which saturate. There are also builds of
    onnxruntime without some of these kernels.
    """
    try:
        products = (("Conv", 1), ("Conv", 16), ("Gemm", 1))
        shifts = (-MOST_STEPS_BITS, -3, -1, 1, 2, MOST_STEPS_BITS)
        return all(_agrees(*product) for product in products) and all(map(_is_brought, shifts))
    except Exception:  # onnxruntime's errors have no common class
        return False


def _agrees(op: str, group: int) -> bool:
    """Whether a product of large random numbers, with biases whole and not, comes out as in float64."""
    from ristretto_cli.backends.onnx_session import Session

    rng = np.random.default_rng(0)
    channels = 16 if group > 1 else 256
    x = rng.choice([-128, -127, -1, 0, 1, 126, 127], (64, channels)).astype(np.float32)
    weight = rng.choice([-128, -127, 3, 126, 127], (16, channels // group)).astype(np.float32)
    bias = rng.integers(-2000, 2000, 16).astype(np.float32) + rng.choice([0, 0.25, 0.5], 16).astype(np.float32)
    top = Grid(-9, -128, 127)
    spread = (1, 1) if op == "Conv" else ()
    product = Product(
        op,
        steps=Grid(0, -128, 127),
        weight=weight.reshape(*weight.shape, *spread),
        weight_grid=Grid(0, -128, 127),
        bias=bias,
        shape=(64, 16, *spread),
        attributes={"kernel_shape": [1, 1], "group": group} if op == "Conv" else {},
    )
    graph = Graph()
    read = graph.input("x", (64, channels, *spread))
    stored = graph.record("Cast", [read], [read.shape], to=TensorProto.UINT8)[0]
    form = IntegerForm(product, top)
    made = graph.record("Cast", [form.record(graph, stored)], [product.shape], to=TensorProto.FLOAT)[0]
    (results,) = Session(graph, {"top": made}).run({"x": (x + ZERO).reshape(read.shape)}).values()
    sums = x.astype(np.float64) * weight[:, 0] if group > 1 else x.astype(np.float64) @ weight.T
    wanted = np.clip(np.rint((sums + bias) / 512), 0, 127)
    return bool(np.array_equal(np.maximum(results.reshape(64, 16) - ZERO, 0), wanted))


def _is_brought(shift: int) -> bool:
    """Whether each byte is brought onto another grid as in float64."""
    from ristretto_cli.backends.onnx_session import Session

    graph = Graph()
    multiples = np.arange(-ZERO, ZERO, dtype=np.float32)
    read = graph.input("x", multiples.shape)
    stored = graph.record("Cast", [read], [read.shape], to=TensorProto.UINT8)[0]
    brought = record_bytes_on_grid(graph, stored, shift)
    made = graph.record("Cast", [brought], [read.shape], to=TensorProto.FLOAT)[0]
    (results,) = Session(graph, {"top": made}).run({"x": multiples + ZERO}).values()
    wanted = np.clip(np.rint(np.ldexp(multiples.astype(np.float64), shift)), -ZERO, ZERO - 1)
    return bool(np.array_equal(results - ZERO, wanted))
