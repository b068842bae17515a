"""A graph pass: absolute values of numbers that are never negative are not computed."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.backends.graph_passes.graph_pass import GraphPass, graph_pass
from ristretto_cli.backends.onnx_graph import Node, Tensor


@graph_pass("drop_abs", order=25)
class DropAbs(GraphPass):
    """The Abs of a value that is never negative is the value."""

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if node.op != "Abs" or not self.facts[node.input(0)].never_negative:
            return None
        return [node.input(0)]
