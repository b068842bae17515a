"""Redundant quantization.

A convolution's output that is quantized to 8 bits, rectified, and quantized to the same format as the next layer's
input needs to be rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.graph_passes.graph_pass import GraphPass, graph_pass
from ristretto_cli.backends.onnx_graph import Node, Tensor
from ristretto_cli.backends.onnx_integers import fits_bytes
from ristretto_cli.ops import Grid


@graph_pass("drop_quantize", order=40)
class DropQuantize(GraphPass):
    """Values on a grid are not quantized to it again; values that are never negative lose the sign bit."""

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if marks.is_mark(node, marks.QUANTIZE_FLOAT):
            x = node.input(0)
            return [x] if self.facts[x].floats == node.attributes["floats"] else None
        if not marks.is_mark(node, marks.QUANTIZE_FIXED):
            return None
        x, grid = node.input(0), marks.grid_of(node)
        fact = self.facts[x]
        # Of a signed 8-bit format, sums of two products with bytes from 0 to 127 fit 16 bits.
        unsigned = replace(grid, low=0)
        if grid.low < 0 and fact.never_negative and fits_bytes(unsigned):
            grid = unsigned
        if fact.grid is not None and grid.contains(fact.grid):
            return [x]
        before = self.graph.producer(x)
        if before is not None and marks.is_mark(before, marks.QUANTIZE_FIXED):
            first = marks.grid_of(before)
            if first.frac_bits == grid.frac_bits:  # saturated twice, rounded once
                both = Grid(grid.frac_bits, max(first.low, grid.low), min(first.high, grid.high))
                return [marks.quantize_fixed(self.graph, before.input(0), both)]
        return None if grid == marks.grid_of(node) else [marks.quantize_fixed(self.graph, x, grid)]
