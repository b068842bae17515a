"""From a recorded graph to one that onnxruntime can run: passes, and the expansion of the marks that are left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.exact_kernels import NONE
from ristretto_cli.backends.facts import Facts
from ristretto_cli.backends.graph_passes.graph_pass import GRAPH_PASSES, Context, GraphPass, Guard, Target
from ristretto_cli.backends.onnx_graph import Graph, Node, Tensor
from ristretto_cli.backends.onnx_integers import record_quantized
from ristretto_cli.backends.onnx_model import ModelProto, model_of
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.formats.fixed import stepwise
from ristretto_cli.formats.minifloat import floatwise

ANYWHERE = Target(NONE, has_blocks=False)


@dataclass(frozen=True)
class Lowered:
    """Outputs of a graph without marks.

    guard: a scalar that is below 1 if what was assumed on the way to them holds; None if nothing was.
    """

    graph: Graph
    outputs: dict[str, Tensor]
    guard: Tensor | None = None

    def model(self, *, embed_weights: bool = True) -> ModelProto:
        """The ONNX model: see `model_of`."""
        return model_of(self.graph, self.outputs, embed_weights=embed_weights)

    def session(self, **settings: Any) -> Session:
        """A Session of it, with these settings."""
        return Session(self.graph, self.outputs, **settings)


def lower(
    graph: Graph, outputs: Mapping[str, Tensor], passes: Sequence[str] = (), target: Target = ANYWHERE
) -> Lowered:
    """Run passes, by name and in this order, on the nodes that outputs need, and expand the remaining marks.

    Without passes, each mark becomes the primitives that define it. The values are the same with any passes, except for
    the sign of zero, and for sums of products that float32 rounds: in integers they are exact.
    """
    context = Context(graph, Facts(graph, target.bound_of_inputs), target)
    found = list(outputs.values())
    chosen: list[type[GraphPass]] = [GRAPH_PASSES.get(name) for name in passes]
    chosen.append(ExpandMarks)
    for graph_pass in chosen:
        found = _apply(graph_pass(context), graph, found)
    needed = {tensor.name for node in graph.needed(found) for tensor in node.outputs}
    guards = [guard for guard in context.guards if guard.value.name in needed]
    return Lowered(graph, dict(zip(outputs, found, strict=True)), _guard(context, guards) if guards else None)


def _apply(graph_pass: GraphPass, graph: Graph, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Show a pass the nodes, in order, and give later nodes the tensors that it returns."""
    replaced: dict[str, Tensor] = {}
    for node in graph.needed(outputs):
        inputs = [tensor and replaced.get(tensor.name, tensor) for tensor in node.inputs]
        with graph.scope_of(node.scope):
            current = node
            if any(new is not old for new, old in zip(inputs, node.inputs, strict=True)):
                current = graph.copy(node, inputs)
                graph_pass.facts.share(node, current)
            tops = graph_pass.visit(current)
        tops = current.outputs if tops is None else tops
        for old, new in zip(node.outputs, tops, strict=True):
            if new is not old:
                replaced[old.name] = new
    context = graph_pass.context
    context.guards = [guard.follow(replaced) for guard in context.guards]
    return [replaced.get(tensor.name, tensor) for tensor in outputs]


def _guard(context: Context, guards: Sequence[Guard]) -> Tensor:
    """The largest of the magnitudes relative to their limits."""
    ops, peaks = context.ops, []
    for guard in guards:
        largest = context.graph.record("ReduceMax", [guard.magnitude], [()], keepdims=0)[0]
        peaks.append(ops.mul(largest, ops.constant(1 / guard.limit)))
    return context.graph.record("Max", peaks, [()])[0]


class ExpandMarks(GraphPass):
    """Each mark as the primitives that define it."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._ops = _ExpandingOps(context)

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if node.domain != marks.DOMAIN:
            return None
        x = node.input(0)
        if node.op == marks.SATURATE:
            return [self._ops.clip(x, node.attributes["low"], node.attributes["high"])]
        if node.op == marks.QUANTIZE_FIXED:
            return [stepwise(self._ops, x, marks.grid_of(node), self._ops.round)]
        if node.op == marks.QUANTIZE_FLOAT:
            return [floatwise(self._ops, x, node.attributes["floats"])]
        if node.op == marks.TO_BYTES:
            grid = marks.grid_of(node)
            step = self.graph.number(math.ldexp(1.0, -grid.frac_bits))
            return [record_quantized(self.graph, x, step, grid)]
        raise ValueError(f"unknown mark {node.op}")


class _ExpandingOps(OnnxOps):
    """OnnxOps that records no Saturate."""

    def __init__(self, context: Context) -> None:
        super().__init__(graph=context.graph)
        self._facts = context.facts

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        bottom, top = self.constant(low), self.constant(high)
        if self._facts[x].is_finite:
            return self._one("Clip", [x, bottom, top], x)
        # ONNX's Clip passes NaN on; a comparison with NaN is false, and so picks high.
        return self.where(self.less(x, top), self.maximum(x, bottom), top)
