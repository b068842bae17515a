"""Facts about the tensors of a recorded graph: bounds, signs, grids.

One transfer function for each operation says what is known of its output, from what is known of its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.onnx_graph import Graph, Node, Tensor
from ristretto_cli.ops import AnyArray, Floats, Grid

# Far enough below float32's end that rounding on the way cannot reach infinity.
FAR_FROM_INFINITY = 2.0**120
_ROWS = 2**20  # elements of a weight that are looked at in one go


@dataclass(frozen=True)
class Fact:
    """Properties of a tensor that hold for all inputs.

    bound: a magnitude that no element exceeds, apart from rounding errors; such a tensor has neither NaN nor infinity.
    None: elements may be anything. low: no element is below it, though some may be NaN. grid: all elements are on it.
    floats: all elements are such minifloats, none above the largest.
    """

    bound: float | None = None
    low: float = -math.inf
    grid: Grid | None = None
    floats: Floats | None = None

    @property
    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return self.bound is not None

    @property
    def never_negative(self) -> bool:
        """Whether no element is below 0; some may be NaN."""
        return self.low >= 0


NOTHING = Fact()


class Facts:
    """The facts of a graph, computed when they are asked for.

    bound_of_inputs: a bound that the inputs of the model are assumed to have; None if nothing is assumed.
    """

    def __init__(self, graph: Graph, bound_of_inputs: float | None = None) -> None:
        self.graph = graph
        self.bound_of_inputs = bound_of_inputs
        self._facts: dict[str, Fact] = {}
        self._declared: set[str] = set()
        self._lowest_magnitudes: dict[str, float] = {}

    def __getitem__(self, tensor: Tensor) -> Fact:
        if tensor.name not in self._facts:
            self._compute(tensor)
        return self._facts[tensor.name]

    def declare(self, tensor: Tensor, fact: Fact) -> Tensor:
        """State a fact that the operations do not show."""
        self._facts[tensor.name] = _representable(fact)
        self._declared.add(tensor.name)
        return tensor

    def share(self, node: Node, copy: Node) -> None:
        """State that a copy of a node computes the same values; more may be known of its inputs."""
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            if old.name in self._declared:
                self.declare(new, self._facts[old.name])

    def lowest_magnitude(self, constant: Tensor) -> float:
        """The lowest magnitude of a constant's elements other than 0, or a step of its grid; infinity without any."""
        name = constant.name
        if name not in self._lowest_magnitudes:
            grid, array = self.graph.grids.get(name), self.graph.initializers[name]
            self._lowest_magnitudes[name] = (
                lowest_magnitude(array) if grid is None else math.ldexp(1.0, max(-1000, min(1000, -grid.frac_bits)))
            )
        return self._lowest_magnitudes[name]

    def _compute(self, tensor: Tensor) -> None:
        # With a stack of its own: nets can be deeper than Python's.
        stack = [tensor]
        while stack:
            node = self.graph.producer(stack[-1])
            missing = [t for t in node.inputs if t is not None and t.name not in self._facts] if node else []
            if node is not None and missing:
                stack += missing
                continue
            top = stack.pop()
            if node is None:
                self._facts[top.name] = self._of_leaf(top)
                continue
            for output in node.outputs:
                self._facts.setdefault(output.name, NOTHING)
            transfer = TRANSFER.get(node.op)
            if transfer is not None and top.name == node.output.name:
                self._facts[top.name] = _representable(transfer(self, node))

    def _of_leaf(self, tensor: Tensor) -> Fact:
        if tensor.name in self.graph.inputs:
            return Fact(self.bound_of_inputs)
        base, exponent = self.graph.scaling(tensor)
        if exponent:
            bound = self[base].bound
            return _representable(Fact(None if bound is None else math.ldexp(bound, exponent)))
        array = self.graph.array(tensor)
        if array is None or array.dtype != np.float32:
            return NOTHING
        low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
        bound = max(-low, high) if math.isfinite(low) and math.isfinite(high) else None
        least = float(array.min()) if array.size else -math.inf
        return _representable(Fact(bound, -math.inf if math.isnan(least) else least))


Transfer: TypeAlias = Callable[[Facts, Node], Fact]


def lowest_magnitude(array: AnyArray) -> float:
    """The lowest magnitude of float32 elements other than 0; infinity if all are 0.

    >>> lowest_magnitude(np.array([-0.5, 0.0, 2.0], np.float32))
    0.5
    """
    least = 2**32 - 1
    for rows in chunks(array):
        # Magnitudes are in the order of their bits; those of a zero, less one, are the largest there are.
        bits = array[rows].view(np.uint32) << np.uint32(1)
        least = int((bits - np.uint32(1)).min(initial=least))
    return math.inf if least == 2**32 - 1 else float(np.uint32((least + 1) >> 1).view(np.float32))


def chunks(array: AnyArray) -> list[slice]:
    """Slices of the first axis, with no more elements than are worth copying."""
    rows = max(1, _ROWS // max(1, math.prod(array.shape[1:])))
    return [slice(start, start + rows) for start in range(0, array.shape[0], rows)]


def _representable(fact: Fact) -> Fact:
    if fact.bound is not None and not fact.bound < FAR_FROM_INFINITY:
        return replace(fact, bound=None)
    return fact


def _inputs(facts: Facts, node: Node) -> list[Fact]:
    return [facts[tensor] for tensor in node.inputs if tensor is not None]


def _same(facts: Facts, node: Node) -> Fact:
    """Of an output whose elements are some of the first input's."""
    return facts[node.input(0)]


def _of_sign(fact: Fact) -> float:
    return 0.0 if fact.never_negative else -math.inf


def _bound_of_sum(found: list[Fact]) -> float | None:
    bounds = [fact.bound for fact in found if fact.bound is not None]
    return math.fsum(bounds) if len(bounds) == len(found) else None


def _max_bound(found: list[Fact]) -> float | None:
    bounds = [fact.bound for fact in found if fact.bound is not None]
    return max(bounds) if len(bounds) == len(found) else None


def _times(*factors: float | None) -> float | None:
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def _add(facts: Facts, node: Node) -> Fact:
    found = _inputs(facts, node)
    low = sum(fact.low for fact in found) if all(fact.never_negative for fact in found) else -math.inf
    return Fact(_bound_of_sum(found), low)


def _sub(facts: Facts, node: Node) -> Fact:
    return Fact(_bound_of_sum(_inputs(facts, node)))


def _mul(facts: Facts, node: Node) -> Fact:
    a, b = _inputs(facts, node)
    is_square = node.inputs[0] == node.inputs[1]
    return Fact(_times(a.bound, b.bound), 0.0 if is_square or (a.never_negative and b.never_negative) else -math.inf)


def _div(facts: Facts, node: Node) -> Fact:
    a, b = _inputs(facts, node)
    divisor, least = facts.graph.array(node.inputs[1]), 0.0
    if divisor is not None and b.bound is not None:
        least = float(np.abs(divisor).min(initial=np.inf))
    bound = _times(a.bound, 1 / least) if least > 0 else None
    return Fact(bound, 0.0 if a.never_negative and b.never_negative else -math.inf)


def _max(facts: Facts, node: Node) -> Fact:
    found = _inputs(facts, node)
    return Fact(_max_bound(found), 0.0 if any(fact.never_negative for fact in found) else -math.inf)


def _pow(facts: Facts, node: Node) -> Fact:
    base = facts[node.input(0)]
    exponents = facts.graph.array(node.inputs[1])
    grows = exponents is None or exponents.max(initial=0) > 0
    return Fact(1.0 if base.low >= 1 and not grows and base.is_finite else None, _of_sign(base))


def _abs(facts: Facts, node: Node) -> Fact:
    return Fact(facts[node.input(0)].bound, 0.0)


def _positive(facts: Facts, node: Node) -> Fact:
    return Fact(None, 0.0)


def _rounded(facts: Facts, node: Node) -> Fact:
    x = facts[node.input(0)]
    return Fact(None if x.bound is None else x.bound + 1, _of_sign(x))


def _relu(facts: Facts, node: Node) -> Fact:
    x = facts[node.input(0)]
    return replace(x, low=max(0.0, x.low), grid=x.grid and replace(x.grid, low=0))


def _up_to_one(facts: Facts, node: Node) -> Fact:
    return Fact(1.0 if facts[node.input(0)].is_finite else None, 0.0)


def _tanh(facts: Facts, node: Node) -> Fact:
    return Fact(1.0 if facts[node.input(0)].is_finite else None)


def _where(facts: Facts, node: Node) -> Fact:
    found = _inputs(facts, node)[1:]
    return Fact(_max_bound(found), 0.0 if all(fact.never_negative for fact in found) else -math.inf)


def _pad(facts: Facts, node: Node) -> Fact:
    found = [facts[node.input(0)], facts[node.input(2)]]
    return Fact(_max_bound(found), min(fact.low for fact in found))


def _concat(facts: Facts, node: Node) -> Fact:
    found = _inputs(facts, node)
    floats = found[0].floats if all(fact.floats == found[0].floats for fact in found) else None
    return Fact(_max_bound(found), min(fact.low for fact in found), _common_grid(found), floats)


def _common_grid(found: list[Fact]) -> Grid | None:
    grids = [fact.grid for fact in found if fact.grid is not None]
    if len(grids) < len(found):
        return None
    frac_bits = max(grid.frac_bits for grid in grids)
    if any(frac_bits - grid.frac_bits > 256 for grid in grids):
        return None
    low = min(grid.low << frac_bits - grid.frac_bits for grid in grids)
    high = max(grid.high << frac_bits - grid.frac_bits for grid in grids)
    return Grid(frac_bits, low, high) if max(-low, high) < FAR_FROM_INFINITY else None


def _product(facts: Facts, node: Node) -> Fact:
    weight = node.input(1)
    count = math.prod(weight.shape[1:])
    x, factor = facts[node.input(0)], facts[weight]
    bias = facts[node.input(2)].bound if len(node.inputs) > 2 else 0.0
    products = _times(x.bound, factor.bound)
    return Fact(None if products is None or bias is None else products * count + bias)


def _average(facts: Facts, node: Node) -> Fact:
    x = facts[node.input(0)]
    return Fact(x.bound, _of_sign(x))


def _lrn(facts: Facts, node: Node) -> Fact:
    """onnxruntime goes through the channels adding a square to k and taking another one away: what is lost of k on the
    way, if squares are large, can make the sum 0 or negative."""
    x = facts[node.input(0)]
    alpha, beta, k = (node.attributes[name] for name in ("alpha", "beta", "bias"))
    if x.bound is None or not (0 <= alpha < math.inf and 0 <= beta < math.inf and 0 < k < math.inf):
        return Fact(None, _of_sign(x))
    lost = 2.0**-23 * node.output.shape[1] * (k + 2 * alpha * x.bound * x.bound)
    grows_bits = -beta * math.log2(k / 2)
    return Fact(x.bound * 2.0**grows_bits if lost < k / 2 and grows_bits < 100 else None, _of_sign(x))


def _clip(facts: Facts, node: Node) -> Fact:
    x = facts[node.input(0)]
    if not x.is_finite or len(node.inputs) < 3 or None in node.inputs:
        return NOTHING
    low, high = facts[node.input(1)], facts[node.input(2)]
    return Fact(_max_bound([low, high]), max(low.low, x.low))


def _saturate(facts: Facts, node: Node) -> Fact:
    low, high = node.attributes["low"], node.attributes["high"]
    return Fact(max(abs(low), abs(high)), low if low <= high else -math.inf)


def _quantize_fixed(facts: Facts, node: Node) -> Fact:
    grid, x = marks.grid_of(node), facts[node.input(0)]
    never_negative = grid.low >= 0 or (x.never_negative and grid.high >= 0)
    return Fact(grid.largest, 0.0 if never_negative else -math.inf, grid)


def _quantize_float(facts: Facts, node: Node) -> Fact:
    floats: Floats = node.attributes["floats"]
    return Fact(2 * floats.largest, _of_sign(facts[node.input(0)]))  # what rounds up past the largest number stays


TRANSFER: Mapping[str, Transfer] = {
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Max": _max,
    "Pow": _pow,
    "Abs": _abs,
    "Exp": _positive,
    "Sqrt": _positive,
    "Floor": _rounded,
    "Round": _rounded,
    "Relu": _relu,
    "Sigmoid": _up_to_one,
    "Softmax": _up_to_one,
    "Tanh": _tanh,
    "Where": _where,
    "Identity": _same,
    "Reshape": _same,
    "Transpose": _same,
    "Slice": _same,
    "MaxPool": _same,
    "Clip": _clip,
    "Pad": _pad,
    "Concat": _concat,
    "Gemm": _product,
    "Conv": _product,
    "AveragePool": _average,
    "GlobalAveragePool": _average,
    "LRN": _lrn,
    marks.SATURATE: _saturate,
    marks.QUANTIZE_FIXED: _quantize_fixed,
    marks.QUANTIZE_FLOAT: _quantize_float,
}
