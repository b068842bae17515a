"""The fast ONNX backend, with each node named after the layer whose value it computes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ristretto_cli.backends.onnx_floats import FloatsOps
from ristretto_cli.backends.onnx_graph import Graph


class ScopedOps(FloatsOps):
    """FloatsOps that names a node after the layer that stores a value, and not after the one that first reads it.

    A value's other forms (whole numbers, bytes) are recorded when a reader asks for them. A convolution whose integers
    are read by a ReLU alone would be called `relu/Conv`, and its time would be the ReLU's.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._stored = _Scoped(self.graph)
        self._trimmed = _Scoped(self.graph)


class _Scoped(dict[str, Any]):
    """Dataclasses by name, whose functions record nodes with the names that they have where the item is set."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __setitem__(self, name: str, item: Any) -> None:
        values = {field.name: getattr(item, field.name) for field in fields(item)}
        makers = {key: self._graph.in_this_scope(value) for key, value in values.items() if callable(value)}
        super().__setitem__(name, replace(item, **makers))
