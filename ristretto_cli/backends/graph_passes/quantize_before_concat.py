"""Quantization and pooling of concatenated values.

Parts with different grids have no common grid of 8 bits, so their concatenation could only be float; quantized to the
next layer's input format one by one, they can be bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.graph_passes.graph_pass import GraphPass, graph_pass
from ristretto_cli.backends.onnx_graph import Node, Tensor


@graph_pass("quantize_before_concat", order=30)
class QuantizeBeforeConcat(GraphPass):
    """Concatenated values are pooled and quantized part by part, each on its own grid."""

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        quantizes = marks.is_mark(node, marks.QUANTIZE_FIXED)
        pools = node.op == "MaxPool" and len(node.outputs) == 1
        if not quantizes and not pools:
            return None
        concat = self.graph.producer(node.input(0))
        common = self.facts[node.input(0)].grid
        if concat is None or concat.op != "Concat" or common is None:
            return None
        if quantizes and marks.grid_of(node).contains(common):
            return [concat.output]
        axis = concat.attributes["axis"]
        parts = [tensor for tensor in concat.inputs if tensor is not None]
        # The parts of many concatenations, one in the other, quantized again and again would cost more than the whole.
        nested = any(producer is not None and producer.op == "Concat" for producer in map(self.graph.producer, parts))
        if nested or (pools and axis != 1):
            return None
        return [self.one("Concat", [self._each(node, part) for part in parts], node.output, axis=axis)]

    def _each(self, node: Node, part: Tensor) -> Tensor:
        shape = (node.output.shape[0], part.shape[1], *node.output.shape[2:]) if node.op == "MaxPool" else part.shape
        return self.graph.record(node.op, [part], [shape], node.domain, **node.attributes)[0]
