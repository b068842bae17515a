"""Marks: operations of the recorded graph that ONNX does not have, until passes and `onnx_lower` replace them.

QuantizeFixed and QuantizeFloat are the primitives quantize_fixed and quantize_float, Saturate is clip, and ToBytes are
the steps of a value on a grid, counted from its lowest number, as uint8.
"""

from __future__ import annotations

from ristretto_cli.backends.onnx_graph import Graph, Node, Tensor
from ristretto_cli.ops import Floats, Grid

DOMAIN = "ristretto"
QUANTIZE_FIXED = "QuantizeFixed"
QUANTIZE_FLOAT = "QuantizeFloat"
SATURATE = "Saturate"
TO_BYTES = "ToBytes"


def quantize_fixed(graph: Graph, x: Tensor, grid: Grid) -> Tensor:
    """x on a grid: rounded half to even, saturated; NaN gives the highest number."""
    return graph.record(QUANTIZE_FIXED, [x], [x.shape], DOMAIN, grid=grid)[0]


def quantize_float(graph: Graph, x: Tensor, floats: Floats) -> Tensor:
    """x as minifloats: see `Ops.quantize_float`."""
    return graph.record(QUANTIZE_FLOAT, [x], [x.shape], DOMAIN, floats=floats)[0]


def saturate(graph: Graph, x: Tensor, low: float, high: float) -> Tensor:
    """min(max(x, low), high); NaN gives high."""
    return graph.record(SATURATE, [x], [x.shape], DOMAIN, low=low, high=high)[0]


def to_bytes(graph: Graph, x: Tensor, grid: Grid) -> Tensor:
    """The steps of x, which is on a grid that fits bytes, counted from grid.low, as uint8."""
    return graph.record(TO_BYTES, [x], [x.shape], DOMAIN, grid=grid)[0]


def is_mark(node: Node | None, op: str) -> bool:
    """Whether a node is a mark of this kind."""
    return node is not None and node.domain == DOMAIN and node.op == op


def grid_of(node: Node) -> Grid:
    """The grid of a QuantizeFixed or ToBytes mark."""
    grid: Grid = node.attributes["grid"]
    return grid
