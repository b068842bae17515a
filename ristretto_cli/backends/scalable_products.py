"""Convolutions and inner products with constants, and how they are multiplied by powers of two without a loss."""

from __future__ import annotations

import math

from ristretto_cli.backends.facts import FAR_FROM_INFINITY, Facts
from ristretto_cli.backends.onnx_graph import Graph, Node, Tensor

MAX_SHIFT = 60  # scales of larger magnitude could leave float32's range
_MIN_NORMAL = 2.0**-126  # a float32 below it has fewer bits


def product_of(graph: Graph, x: Tensor) -> Node | None:
    """The Conv or Gemm with constant weights and bias that computes x; None if that is not what x is."""
    node = graph.producer(x)
    if node is None or node.domain or node.op not in {"Conv", "Gemm"}:
        return None
    return node if all(_is_constant(graph, tensor) for tensor in node.inputs[1:]) else None


def bias_of(node: Node) -> Tensor | None:
    """The bias of a Conv or Gemm, if it has one."""
    return node.inputs[2] if len(node.inputs) > 2 else None


def can_scale(facts: Facts, constant: Tensor, exponent: int) -> bool:
    """Whether a constant times 2^exponent is exact in float32."""
    base, before = facts.graph.scaling(constant)
    exponent += before
    bound = facts[base].bound
    if abs(exponent) > MAX_SHIFT or bound is None or math.ldexp(bound, exponent) >= FAR_FROM_INFINITY:
        return False
    return exponent >= 0 or math.ldexp(facts.lowest_magnitude(base), exponent) >= _MIN_NORMAL


def can_scale_product(facts: Facts, x: Tensor, exponent: int) -> bool:
    """Whether x is a product with constants, and times 2^exponent exactly what `scaled_product` computes."""
    node, bound = product_of(facts.graph, x), facts[x].bound
    if node is None or bound is None or abs(exponent) > MAX_SHIFT or math.ldexp(bound, exponent) >= FAR_FROM_INFINITY:
        return False
    if node.op == "Gemm":
        return True
    return all(tensor is None or can_scale(facts, tensor, exponent) for tensor in node.inputs[1:])


def scaled_product(graph: Graph, x: Tensor, exponent: int) -> Tensor:
    """A product times 2^exponent: the convolution of constants that are so many times as large.

    An inner product has more constants than results, so its result is multiplied instead.
    """
    node = graph.producer(x)
    if exponent == 0 or node is None:
        return x
    if node.op == "Gemm":
        return graph.record("Mul", [x, graph.number(math.ldexp(1.0, exponent))], [x.shape])[0]
    constants = [None if tensor is None else graph.scaled(tensor, exponent) for tensor in node.inputs[1:]]
    with graph.scope_of(node.scope):
        return graph.record("Conv", [node.input(0), *constants], [x.shape], **node.attributes)[0]


def _is_constant(graph: Graph, tensor: Tensor | None) -> bool:
    return tensor is None or graph.array(graph.scaling(tensor)[0]) is not None
