"""Common subexpressions."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.backends.graph_passes.graph_pass import Context, GraphPass, graph_pass
from ristretto_cli.backends.onnx_graph import Node, Tensor


@graph_pass("share_nodes", order=20)
class ShareNodes(GraphPass):
    """Equal operations on equal inputs are computed once."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._first: dict[object, tuple[Tensor, ...]] = {}

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if not node.inputs:  # random numbers
            return None
        names = tuple(None if tensor is None else tensor.name for tensor in node.inputs)
        key = node.op, node.domain, names, len(node.outputs), repr(sorted(node.attributes.items()))
        first = self._first.setdefault(key, node.outputs)
        return None if first is node.outputs else first
