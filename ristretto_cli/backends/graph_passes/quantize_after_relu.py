"""Quantization followed by a ReLU, also if poolings and reshapes are in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.graph_passes.graph_pass import Context, GraphPass, graph_pass, is_move
from ristretto_cli.backends.onnx_graph import Node, Tensor


@graph_pass("quantize_after_relu", order=50)
class QuantizeAfterRelu(GraphPass):
    """A ReLU of a quantized value becomes the lower end of the quantization."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._rectified: dict[str, Tensor] = {}

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if node.op != "Relu" or node.domain:
            return None
        rectified = self._rectify(node.input(0))
        return None if rectified is None else [rectified]

    def _rectify(self, x: Tensor) -> Tensor | None:
        moves = []
        producer = self.graph.producer(x)
        while producer is not None and is_move(producer):
            moves.append(producer)
            producer = self.graph.producer(producer.input(0))
        if producer is None or not marks.is_mark(producer, marks.QUANTIZE_FIXED):
            return None
        for move in [producer, *reversed(moves)]:
            top = move.output.name
            if top not in self._rectified:
                self._rectified[top] = self._again(move)
        return self._rectified[x.name]

    def _again(self, node: Node) -> Tensor:
        x = node.input(0)
        with self.graph.scope_of(node.scope):
            if is_move(node):
                return self.again(node, self._rectified[x.name])
            return marks.quantize_fixed(self.graph, x, replace(marks.grid_of(node), low=0))
