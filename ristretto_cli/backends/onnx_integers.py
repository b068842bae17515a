"""Products of eight-bit integers: onnxruntime's QLinearConv and QGemm, where they are exact.

A value on a grid of up to eight bits is stored as unsigned bytes that count the grid's steps from its lowest value, so
that `-grid.low` is the zero point. Sums of products are int32; they are scaled to the top's grid in float32 and rounded
half to even. All scales are powers of two, so nothing else is rounded.

Whether a kernel is exact depends on the processor: with AVX2 and no VNNI, onnxruntime multiplies unsigned by signed
bytes and adds pairs of products in 16 bits, which saturate. Weights as unsigned bytes take a slower kernel that does
not; and pairs of small products cannot saturate. `onnx_kernels` finds out which kernels can be used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from ristretto_cli.backends.facts import chunks
from ristretto_cli.backends.onnx_graph import Graph, Tensor, conv_attributes
from ristretto_cli.ops import AnyArray, Array, ConvGeometry, Grid, Shape

_EXACT = 2**24  # float32 holds all integers up to this one
_MAX_SHIFT = 60  # bits; scales of larger magnitude could leave float32's range
MAX_STEPS_BITS = 15  # between grids of bytes: float32 holds such multiples of bytes, and int32 what is rounded of them
_ROWS = 2**20  # elements of a weight that are looked at in one go
_WEIGHT_ZERO = 128  # of weights that are stored as unsigned bytes


class Operation(Enum):
    """The operations that onnxruntime has integer kernels of its own for."""

    CONV = "convolution"
    GROUPED_CONV = "grouped convolution"
    DEPTHWISE_CONV = "depthwise convolution"
    GEMM = "inner product"


class Weights(Enum):
    """The ways to multiply the weights of a product with unsigned bytes, the fastest first."""

    SIGNED = "signed"
    SIGNED_BOUNDED = "signed, so small that no sum of two products exceeds 16 bits"
    UNSIGNED = "unsigned, with a zero point of 128"


@dataclass(frozen=True)
class Kernel:
    """An integer kernel of onnxruntime's CPU provider."""

    operation: Operation
    weights: Weights


ALL_KERNELS = frozenset(Kernel(operation, weights) for operation in Operation for weights in Weights)


@dataclass(frozen=True)
class Product:
    """A convolution or an inner product of a value with constants, (C', ...) and (C').

    steps: the grid of what is multiplied. geometry: that of a convolution; None for an inner product. bias_grid: None
    if the bias is on no known grid.
    """

    steps: Grid
    weight: Array
    weight_grid: Grid
    bias: Array | None
    shape: Shape
    geometry: ConvGeometry | None
    bias_grid: Grid | None = None

    @property
    def unit_bits(self) -> int:
        """The sums are multiples of 2^-this."""
        return self.steps.frac_bits + self.weight_grid.frac_bits

    def integer_form(self, grid: Grid) -> IntegerForm | None:
        """The integer computation with a top on this grid of up to eight bits; None where it is not exact."""
        if abs(self.unit_bits - grid.frac_bits) > _MAX_SHIFT:
            return None
        low = math.ldexp(float(self.weight.min(initial=0)), self.weight_grid.frac_bits)
        high = math.ldexp(float(self.weight.max(initial=0)), self.weight_grid.frac_bits)
        if low < -128 or high > 127 or len(self.weight.shape) not in (2, 4):
            return None
        form = IntegerForm(self, grid)
        return form if form.is_exact else None

    @property
    def operation(self) -> Operation:
        """Which of onnxruntime's operations it is."""
        if self.geometry is None:
            return Operation.GEMM
        if self.geometry.group == 1:
            return Operation.CONV
        depthwise = self.weight.shape[0] == self.geometry.group and self.weight.shape[1] == 1
        return Operation.DEPTHWISE_CONV if depthwise else Operation.GROUPED_CONV


@dataclass(frozen=True)
class IntegerForm:
    """A Product whose top is rounded to a grid, with all of it in integers."""

    product: Product
    grid: Grid

    @property
    def _dropped_bits(self) -> int:
        """The number of bits by which rounding shortens the sums."""
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
        """The bias as int32, rounded down to a multiple of the unit."""
        return np.floor(self._bias).astype(np.int32)

    @property
    def has_remainder(self) -> AnyArray:
        """For each channel whether its bias is more than that."""
        return np.asarray(self._bias != np.floor(self._bias))

    @cached_property
    def _largest_sum(self) -> float:
        """A bound of all sums, in their unit."""
        largest = max(-self.product.steps.low, self.product.steps.high)
        sums = np.concatenate(
            [
                np.abs(self.weight[rows].astype(np.int16)).reshape(self.weight[rows].shape[0], -1).sum(1, np.int64)
                for rows in chunks(self.weight)
            ]
        )
        return float((sums * largest + np.abs(self._bias)).max(initial=0.0)) + 1

    @cached_property
    def is_exact(self) -> bool:
        """Whether no sum is rounded before it is rounded to the grid."""
        if not np.isfinite(self._bias).all():
            return False
        most = self._largest_sum
        # Sums that float32 cannot hold do no harm where they saturate anyway.
        saturated = math.ldexp(max(-self.grid.low, self.grid.high) + 1, self._dropped_bits)
        return most < 2**31 and (most < _EXACT or saturated <= _EXACT)

    @property
    def is_exact_if_rectified(self) -> bool:
        """Whether it is also exact for what is above 0 if biases have rests: see `record`."""
        ties_end = math.ldexp(max(-self.grid.low, self.grid.high) + 1, self._dropped_bits)
        return self._dropped_bits >= 1 and ties_end <= _EXACT / 4 and self._floats_keep_remainders

    @property
    def _floats_keep_remainders(self) -> bool:
        """Whether float32 sums have all bits of biases that are on a finer grid than the products."""
        if self.product.bias_grid is None:
            return True
        finer = self.product.bias_grid.frac_bits - self.product.unit_bits
        return finer <= _MAX_SHIFT and math.ldexp(self._largest_sum, finer) <= _EXACT

    def is_faster(self, kernel: Kernel) -> bool:
        """Whether a kernel is faster than a float32 product and what rounds its top.

        Its convolutions copy the bytes under each place of a filter, some channels at a time, which costs more than the
        products save where a group has few channels and few filters.
        """
        geometry = self.product.geometry
        if geometry is None or kernel.operation not in (Operation.CONV, Operation.GROUPED_CONV):
            return True
        filters, channels = self.weight.shape[0] // geometry.group, self.weight.shape[1]
        return bool(filters * channels >= (192 if kernel.weights is Weights.UNSIGNED else 96))

    @cached_property
    def sums_of_two_fit_16_bits(self) -> bool:
        """Whether no sum of any two products of a stored byte and a signed weight exceeds 16 bits."""
        largest = max(int(np.abs(self.weight[rows].astype(np.int16)).max(initial=0)) for rows in chunks(self.weight))
        return 2 * largest * (self.product.steps.high - self.product.steps.low) <= 2**15 - 1

    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels that could compute it, fastest first."""
        return tuple(
            Kernel(self.product.operation, weights)
            for weights in Weights
            if weights is not Weights.SIGNED_BOUNDED or self.sums_of_two_fit_16_bits
        )

    def record(self, graph: Graph, stored: Tensor, low: int, kernel: Kernel) -> Tensor:
        """Record the node that makes the top's bytes of the bottom's: they count steps from `low`, and saturate at the
        ends of a byte.

        The remainder of a bias is less than the unit of the sums. It matters only for sums that lie in the middle
        between two numbers of the grid: with it they are above the middle. A scale that is one last place larger lifts
        them there if they are positive, and moves nothing else past a middle.
        """
        one = np.float32(1)
        scales = np.where(self.has_remainder, np.nextafter(one, np.float32(2)), one)
        scale = graph.constant(scales if self.has_remainder.any() else np.asarray(one))
        bottom_zero, top_zero = (graph.constant(np.uint8(-lowest)) for lowest in (self.product.steps.low, low))
        unit = graph.constant(np.asarray(one))
        unsigned = kernel.weights is Weights.UNSIGNED
        weight = graph.deferred(self.weight.shape, self._unsigned_weight if unsigned else lambda: self.weight)
        # With several scales there must be as many zeros.
        zeros = np.full(scales.shape if self.has_remainder.any() else (), _WEIGHT_ZERO if unsigned else 0)
        weight_zero = graph.constant(zeros.astype(np.uint8 if unsigned else np.int8))
        operands = [stored, unit, bottom_zero, weight, scale, weight_zero]
        step = graph.constant(np.asarray(math.ldexp(1.0, self._dropped_bits), np.float32))
        bias = graph.constant(self.bias)
        shape, geometry = [self.product.shape], self.product.geometry
        if geometry is not None:
            attributes = conv_attributes(self.weight.shape[2:], geometry)
            return graph.record("QLinearConv", [*operands, step, top_zero, bias], shape, **attributes)[0]
        return graph.record("QGemm", [*operands, bias, step, top_zero], shape, domain="com.microsoft", transB=1)[0]

    def _unsigned_weight(self) -> AnyArray:
        unsigned: AnyArray = self.weight.view(np.uint8) ^ np.uint8(_WEIGHT_ZERO)
        return unsigned


def fits_bytes(grid: Grid) -> bool:
    """Whether values on a grid, 0 among them, can be stored as bytes that count from its lowest value.

    That must be even: QLinearAdd adds the zero point before it rounds half to even.
    """
    return grid.low % 2 == 0 and grid.low <= 0 <= grid.high and grid.high - grid.low <= 255


def record_rescaled(graph: Graph, stored: Tensor, low: int, shift: int, top_low: int) -> Tensor:
    """Record the node that brings bytes that count steps from `low` onto a grid with a step of 2^-shift times theirs:
    they count its steps from `top_low`, rounded half to even, and saturate at the ends of a byte.

    onnxruntime's fastest kernel for that adds two values; the other one is 0 here.
    """
    if shift == 0 and low == top_low:
        return stored
    one, none = graph.constant(np.float32(1)), graph.constant(np.uint8(0))
    zero, top_zero = graph.constant(np.uint8(-low)), graph.constant(np.uint8(-top_low))
    step = graph.constant(np.float32(math.ldexp(1.0, -shift)))
    operands = [stored, one, zero, none, one, none, step, top_zero]
    return graph.record("QLinearAdd", operands, [stored.shape], domain="com.microsoft")[0]


def zero_point(graph: Graph, low: int) -> Tensor:
    """The zero point of bytes that count steps from `low`."""
    return graph.constant(np.uint8(-low))


def record_quantized(graph: Graph, x: Tensor, step: Tensor, grid: Grid) -> Tensor:
    """Record the nodes that count the steps of finite floats from grid.low, rounded half to even and saturated."""
    zero = zero_point(graph, grid.low)
    stored = graph.record("QuantizeLinear", [x, step, zero], [x.shape])[0]
    highest = grid.high - grid.low
    if highest >= 255:
        return stored
    return graph.record("Clip", [stored, None, graph.constant(np.uint8(highest))], [x.shape])[0]
