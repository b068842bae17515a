"""Float32 products on the scale of their results.

A value on a grid is kept as its steps, integers in float32, from where it is quantized to the next convolution, whose
weights are scaled by the grid's step. All scales are powers of two, so nothing is rounded differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.facts import Fact
from ristretto_cli.backends.graph_passes.graph_pass import Context, GraphPass, graph_pass, has_blocks, is_move
from ristretto_cli.backends.onnx_graph import Node, Tensor, conv_attributes
from ristretto_cli.backends.onnx_integers import fits_bytes, record_quantized, zero_point
from ristretto_cli.backends.scalable_products import MAX_SHIFT, bias_of, can_scale, can_scale_product, scaled_product
from ristretto_cli.ops import ConvGeometry, Grid

_SHORTS = Grid(0, -(2**15), 2**15 - 1)
_MAX_IN_BLOCKS = 2**21


class Blocks(Enum):
    """Whether a tensor has its channels in blocks (NCHWc), as onnxruntime's float convolutions write them."""

    NO = "it has not"
    MADE = "a convolution wrote it"
    KEPT = "a pooling read what a convolution wrote, clipped"


@dataclass(frozen=True)
class Steps:
    """A value on a grid in steps of the grid, float32.

    unrounded: the tensor that was clipped and rounded to give them, if there is one, and how it is laid out.
    """

    steps: Tensor
    grid: Grid
    unrounded: Tensor | None = None
    blocks: Blocks = Blocks.NO


@graph_pass("scale_products", order=70)
class ScaleProducts(GraphPass):
    """Float32 convolutions with scaled weights compute steps of the grid, which need only be rounded to integers."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._steps: dict[str, Steps] = {}

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if marks.is_mark(node, marks.QUANTIZE_FIXED):
            return self._quantized(node.input(0), marks.grid_of(node))
        if marks.is_mark(node, marks.TO_BYTES):
            return [self._bytes(node.input(0), marks.grid_of(node))]
        if node.op == "Concat":
            return self._joined(node)
        found = self._steps.get(node.input(0).name) if node.inputs and node.inputs[0] is not None else None
        if found is None:
            return None
        if node.op == "Conv":
            return self._convolved(node, found)
        if node.op == "Relu":
            return [self._value(self._rectified(node, found))]
        if is_move(node):
            return [self._value(self._moved(node, found))]
        return None

    def _value(self, found: Steps, value: Tensor | None = None) -> Tensor:
        """The value itself. value: a cheaper way to compute it than from the steps."""
        if value is None:
            step = self.graph.number(math.ldexp(1.0, -found.grid.frac_bits))
            value = self.one("Mul", [found.steps, step], found.steps)
        self._steps[value.name] = found
        return self.facts.declare(value, _fact(found.grid))

    def _quantized(self, x: Tensor, grid: Grid) -> Sequence[Tensor] | None:
        if abs(grid.frac_bits) > MAX_SHIFT:
            return None
        again = self._requantized(x, grid)
        if again is not None:
            return [self._value(again)]
        if can_scale_product(self.facts, x, grid.frac_bits):
            unrounded = scaled_product(self.graph, x, grid.frac_bits)
            found = self._rounded(unrounded, grid, Blocks.MADE if has_blocks(self.target, x) else Blocks.NO)
            # Without a reader that takes steps, this is cheaper.
            direct = self._by_quantize_linear(x, grid)
            return [self._value(found, None if direct is None else direct[1])]
        direct = self._by_quantize_linear(x, grid)
        if direct is not None:
            return [self._value(Steps(direct[0], grid), direct[1])]
        unrounded = self.one("Mul", [x, self.graph.number(math.ldexp(1.0, grid.frac_bits))], x)
        return [self._value(self._rounded(unrounded, grid, Blocks.NO))]

    def _by_quantize_linear(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor] | None:
        """The steps and the value by QuantizeLinear and DequantizeLinear, for the grids that ONNX's integers have."""
        if not self.facts[x].is_finite:  # QuantizeLinear defines no result for NaN
            return None
        step = self.graph.number(math.ldexp(1.0, -grid.frac_bits))
        if fits_bytes(grid):
            zero, stored = zero_point(self.graph, grid.low), record_quantized(self.graph, x, step, grid)
        elif grid == replace(_SHORTS, frac_bits=grid.frac_bits):
            zero = self.graph.constant(np.int16(0))
            stored = self.one("QuantizeLinear", [x, step, zero], x)
        else:
            return None
        steps, value = (self.one("DequantizeLinear", [stored, size, zero], x) for size in (self.graph.number(1), step))
        return self.facts.declare(steps, _fact(replace(grid, frac_bits=0))), value

    def _requantized(self, x: Tensor, grid: Grid) -> Steps | None:
        """Steps in blocks of channels brought onto another grid, in blocks; None for others."""
        found = self._steps.get(x.name)
        if found is None or found.blocks is Blocks.NO:
            return None
        shift = grid.frac_bits - found.grid.frac_bits
        if abs(shift) > MAX_SHIFT:
            return None
        largest = math.ldexp(max(-found.grid.low, found.grid.high), shift)
        if max(math.ldexp(largest, -shift), largest) > _MAX_IN_BLOCKS:
            return None
        unrounded = self._by_channel(found.steps, math.ldexp(1.0, shift), 0.0)
        return self._rounded(self.facts.declare(unrounded, Fact(largest)), grid, Blocks.MADE)

    def _rounded(self, unrounded: Tensor, grid: Grid, blocks: Blocks, *, clipped: bool = False) -> Steps:
        """Rounded and saturated. clipped: the tensor has no elements outside the grid."""
        if blocks is not Blocks.NO and max(-grid.low, grid.high) <= _MAX_IN_BLOCKS:
            steps = self._rounded_in_blocks(unrounded, blocks)
            steps = steps if clipped else self._clip(steps, grid)
        else:
            steps = self.one("Round", [unrounded if clipped else self._clip(unrounded, grid)], unrounded)
        self.facts.declare(steps, _fact(replace(grid, frac_bits=0)))
        return Steps(steps, grid, unrounded, blocks)

    def _rounded_in_blocks(self, x: Tensor, blocks: Blocks) -> Tensor:
        """The nearest integers to numbers of at most _MAX_IN_BLOCKS, by operations that keep channels in blocks.

        After a convolution onnxruntime keeps the channels in blocks as long as the next operations can work with them.
        Rounding cannot; an activation can, and so can a convolution of each channel for itself. Numbers from 1/2 to 1
        are multiples of 2^-24: added to 3/4, a number 2^24 times as large is rounded as Round does it.
        """
        scale = 2.0**24
        if blocks is Blocks.MADE:
            lifted = self.one("HardSigmoid", [x], x, alpha=1 / scale, beta=0.75)  # saturates far from the grid
        else:
            lifted = self._by_channel(x, 1 / scale, 0.75)
        return self.facts.declare(self._by_channel(lifted, scale, -0.75 * scale), Fact(scale))

    def _by_channel(self, x: Tensor, scale: float, offset: float) -> Tensor:
        channels = x.shape[1]
        weight = self.graph.constant(np.full((channels, 1, 1, 1), scale, np.float32))
        bias = self.graph.constant(np.full(channels, offset, np.float32))
        attributes = conv_attributes((1, 1), ConvGeometry.dense(2, group=channels))
        return self.one("Conv", [x, weight, bias], x, **attributes)

    def _clip(self, x: Tensor, grid: Grid) -> Tensor:
        low, high = float(grid.low), float(grid.high)
        if self.facts[x].is_finite:
            return self.one("Clip", [x, self.graph.number(low), self.graph.number(high)], x)
        return marks.saturate(self.graph, x, low, high)

    def _rectified(self, node: Node, found: Steps) -> Steps:
        grid = replace(found.grid, low=0)
        if found.unrounded is not None:
            return self._rounded(found.unrounded, grid, found.blocks)
        return Steps(self.again(node, found.steps), grid)

    def _moved(self, node: Node, found: Steps) -> Steps:
        if node.op != "MaxPool" or found.unrounded is None:
            return Steps(self.again(node, found.steps), found.grid)
        # Of the largest before rounding, fewer are left to be rounded. Clipping costs nothing after a convolution.
        unrounded = self.again(node, self._clip(found.unrounded, found.grid))
        blocks = Blocks.NO if found.blocks is Blocks.NO else Blocks.KEPT
        return self._rounded(unrounded, found.grid, blocks, clipped=True)

    def _joined(self, node: Node) -> Sequence[Tensor] | None:
        found = [self._steps.get(tensor.name) for tensor in node.inputs if tensor is not None]
        parts = [part for part in found if part is not None]
        if len(parts) < len(found) or len({part.grid.frac_bits for part in parts}) != 1:
            return None
        grid = self.facts[node.output].grid
        if grid is None:
            return None
        return [self._value(Steps(self.one("Concat", [p.steps for p in parts], node.output, **node.attributes), grid))]

    def _convolved(self, node: Node, found: Steps) -> Sequence[Tensor] | None:
        weight, exponent = node.input(1), -found.grid.frac_bits
        if self.graph.array(weight) is None or not can_scale(self.facts, weight, exponent):
            return None
        operands: list[Any] = [found.steps, self.graph.scaled(weight, exponent), bias_of(node)]
        top = self.one("Conv", operands if operands[2] is not None else operands[:2], node.output, **node.attributes)
        return [self.facts.declare(top, self.facts[node.output])]

    def _bytes(self, x: Tensor, grid: Grid) -> Tensor:
        """The bytes of a value on a grid, which others need as floats."""
        found = self._steps.get(x.name)
        if found is None:
            return record_quantized(self.graph, x, self.graph.number(math.ldexp(1.0, -grid.frac_bits)), grid)
        is_finite = found.unrounded is not None and self.facts[found.unrounded].is_finite
        source = found.unrounded if found.unrounded is not None and is_finite else found.steps
        return record_quantized(self.graph, source, self.graph.number(1), grid)


def _fact(grid: Grid) -> Fact:
    return Fact(grid.largest, 0.0 if grid.low >= 0 else -math.inf, grid)
