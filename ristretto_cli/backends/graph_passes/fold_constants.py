"""Constant folding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.graph_passes.graph_pass import GraphPass, graph_pass
from ristretto_cli.backends.onnx_graph import Node, Tensor
from ristretto_cli.ops import AnyArray

_MAX_SIZE = 2**16  # elements of constants that are computed beforehand

# Operations with the same result everywhere: IEEE 754 defines how they are rounded, or they do not round.
_EXACT: Mapping[str, Callable[..., AnyArray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Floor": np.floor,
    "Round": np.rint,
    "Equal": np.equal,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "Where": np.where,
    "Reshape": lambda x, shape: x.reshape(shape),
}


@graph_pass("fold_constants", order=10)
class FoldConstants(GraphPass):
    """Operations on constants are computed once, when the graph is built."""

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        arrays = [array for array in map(self.graph.array, node.inputs) if array is not None]
        if len(arrays) < len(node.inputs) or not arrays or any(array.size > _MAX_SIZE for array in arrays):
            return None
        with np.errstate(all="ignore"):
            if marks.is_mark(node, marks.SATURATE):
                low, high = (np.float32(node.attributes[name]) for name in ("low", "high"))
                result = np.where(arrays[0] < high, np.maximum(arrays[0], low), high)
            elif node.op in _EXACT and not node.domain:
                result = np.asarray(_EXACT[node.op](*arrays))
            else:
                return None
        return [self.graph.constant(result)] if result.size <= _MAX_SIZE else None
