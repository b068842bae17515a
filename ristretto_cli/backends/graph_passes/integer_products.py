"""Integer kernels: QLinearConv and QGemm.

A value on a grid of up to eight bits is kept as uint8 steps from where it is quantized to where it is read; operations
that select elements (pooling, Reshape, Slice, Concat) work on the bytes. Floats are computed from the bytes for readers
that need them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.facts import Fact
from ristretto_cli.backends.graph_passes.graph_pass import Context, GraphPass, graph_pass, is_move
from ristretto_cli.backends.onnx_graph import Node, Tensor, conv_geometry
from ristretto_cli.backends.onnx_integers import MAX_STEPS_BITS, Product, fits_bytes, record_rescaled, zero_point
from ristretto_cli.backends.products import MAX_SHIFT, bias_of, can_scale_product, product_of
from ristretto_cli.ops import Grid


@dataclass(frozen=True)
class Bytes:
    """A value on a grid as uint8 steps from grid.low.

    uncut: they may exceed the grid's highest number, which `IntegerProducts.cut` mends.
    """

    uncut: Tensor
    grid: Grid


@graph_pass("integer_products", order=60)
class IntegerProducts(GraphPass):
    """Convolutions and inner products of up to 8 bits take integer kernels, where these are proved to be exact."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._bytes: dict[str, Bytes] = {}
        self._cuts: dict[tuple[str, int], Tensor] = {}
        self._of_others: dict[str, Tensor] = {}  # values on grids that are computed as floats

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if marks.is_mark(node, marks.QUANTIZE_FIXED):
            found = self._quantized(node)
        elif is_move(node):
            found = self._moved(node)
        elif node.op == "Concat":
            found = self._joined(node)
        elif node.op == "Relu":
            found = self._rectified(node)
        else:
            return None
        return None if found is None else [self._value(found, node.output)]

    def _value(self, found: Bytes, like: Tensor) -> Tensor:
        """The value itself, for those who read floats."""
        step = self.graph.number(math.ldexp(1.0, -found.grid.frac_bits))
        operands = [self._cut(found), step, zero_point(self.graph, found.grid.low)]
        value = self.one("DequantizeLinear", operands, like)
        low = 0.0 if found.grid.low >= 0 else -math.inf
        self.facts.declare(value, Fact(found.grid.largest, low, found.grid))
        self._bytes[value.name] = found
        return value

    def _cut(self, found: Bytes) -> Tensor:
        """The bytes, none above the grid's highest number."""
        highest = found.grid.high - found.grid.low
        if highest >= 255:
            return found.uncut
        key = found.uncut.name, highest
        if key not in self._cuts:
            top = self.graph.constant(np.uint8(highest))
            self._cuts[key] = self.one("Clip", [found.uncut, None, top], found.uncut)
        return self._cuts[key]

    def _quantized(self, node: Node) -> Bytes | None:
        x, grid = node.input(0), marks.grid_of(node)
        if not fits_bytes(grid) or abs(grid.frac_bits) > MAX_SHIFT:
            return None
        before = self._bytes.get(x.name)
        return (before and self._requantized(before, grid)) or self._product(x, grid) or self._of_floats(x, grid)

    def _requantized(self, before: Bytes, grid: Grid) -> Bytes | None:
        shift = grid.frac_bits - before.grid.frac_bits
        if shift == 0 and grid.low == before.grid.low:
            return Bytes(before.uncut, replace(grid, high=min(grid.high, before.grid.high)))
        if abs(shift) > MAX_STEPS_BITS or not self.target.kernels.rescales():
            return None
        return Bytes(record_rescaled(self.graph, self._cut(before), before.grid.low, shift, grid.low), grid)

    def _product(self, x: Tensor, grid: Grid) -> Bytes | None:
        """The product of a value on a grid of bytes with constants, rounded to a grid."""
        node = product_of(self.graph, x)
        if node is None:
            return None
        bottom, weight = node.input(0), node.input(1)
        steps, weight_grid = self._byte_grid(bottom), self.graph.grids.get(weight.name)
        if steps is None or weight_grid is None:
            return None
        geometry = conv_geometry(node) if node.op == "Conv" else None
        weights, bias = self.graph.initializers[weight.name], self.graph.array(bias_of(node))
        form = Product(steps, weights, weight_grid, bias, x.shape, geometry).integer_form(grid)
        if form is None or (form.has_remainder.any() and not (grid.low >= 0 and form.is_exact_if_rectified)):
            return None
        kernel = self.target.kernels.fastest(form)
        if kernel is None:
            return None
        return Bytes(form.record(self.graph, self._bytes_of(bottom, steps), grid.low, kernel), grid)

    def _byte_grid(self, x: Tensor) -> Grid | None:
        if x.name in self._bytes:
            return self._bytes[x.name].grid
        grid = self.facts[x].grid
        return grid if grid is not None and fits_bytes(grid) and abs(grid.frac_bits) <= MAX_SHIFT else None

    def _bytes_of(self, x: Tensor, grid: Grid) -> Tensor:
        if x.name in self._bytes:
            return self._cut(self._bytes[x.name])
        if x.name not in self._of_others:
            self._of_others[x.name] = marks.to_bytes(self.graph, x, grid)
        return self._of_others[x.name]

    def _of_floats(self, x: Tensor, grid: Grid) -> Bytes | None:
        """A value, quantized, that is not a product, or a product that cannot be computed on the grid's scale."""
        if not self.facts[x].is_finite or can_scale_product(self.facts, x, grid.frac_bits):
            return None
        operands = [x, self.graph.number(math.ldexp(1.0, -grid.frac_bits)), zero_point(self.graph, grid.low)]
        return Bytes(self.one("QuantizeLinear", operands, x), grid)

    def _moved(self, node: Node) -> Bytes | None:
        before = self._bytes.get(node.input(0).name)
        # Bytes above the highest number are cut after the move, where there may be fewer.
        return None if before is None else Bytes(self.again(node, before.uncut), before.grid)

    def _joined(self, node: Node) -> Bytes | None:
        found = [self._bytes.get(tensor.name) for tensor in node.inputs if tensor is not None]
        parts = [part for part in found if part is not None]
        grids = {part.grid for part in parts}
        frac_bits = parts[0].grid.frac_bits if parts else 0
        if len(parts) < len(found) or any(grid.frac_bits != frac_bits for grid in grids):
            return None
        grid = Grid(frac_bits, min(grid.low for grid in grids), max(grid.high for grid in grids))
        if not fits_bytes(grid):
            return None
        if len({grid.low for grid in grids}) > 1 and not self.target.kernels.rescales():
            return None
        joined = [part.uncut if len(grids) == 1 else self._based(part, grid.low) for part in parts]
        return Bytes(self.one("Concat", joined, node.output, **node.attributes), grid)

    def _based(self, part: Bytes, low: int) -> Tensor:
        return record_rescaled(self.graph, self._cut(part), part.grid.low, 0, low)

    def _rectified(self, node: Node) -> Bytes | None:
        before = self._bytes.get(node.input(0).name)
        if before is None or (before.grid.low < 0 and not self.target.kernels.rescales()):
            return None
        return Bytes(self._based(before, 0), replace(before.grid, low=0))
