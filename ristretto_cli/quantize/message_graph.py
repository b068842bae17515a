"""The connections of a net's LayerParameters: who writes and who reads each version of a blob."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ristretto_cli.caffe_io.messages import Message


@dataclass(eq=False)
class Node:
    """A layer. producers: of each bottom, the layer that wrote it, if any. readers: of its tops, as it wrote them."""

    name: str
    type: str
    producers: list[Node | None] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)

    @property
    def producer(self) -> Node | None:
        """The layer that wrote the first bottom; None if there is none."""
        return self.producers[0] if self.producers else None


class MessageGraph:
    """The connections of layers in the order of execution, by the names of their blobs; neither shapes nor data."""

    def __init__(self, layers: Sequence[Message]) -> None:
        self._nodes: dict[str, Node] = {}
        current: dict[str, Node] = {}
        for layer in layers:
            node = Node(layer.name, layer.type, [current.get(name) for name in layer.bottom])
            for producer in node.producers:
                if producer is not None:
                    producer.readers.append(node)
            current.update(dict.fromkeys(layer.top, node))
            self._nodes.setdefault(node.name, node)

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def remove(self, name: str) -> None:
        """Remove a layer with one bottom, if it is there: the readers of its top then read that bottom."""
        node = self._nodes.pop(name, None)
        if node is None:
            return
        producer = node.producer
        for reader in node.readers:
            reader.producers = [producer if each is node else each for each in reader.producers]
        if producer is not None:
            producer.readers = [each for each in producer.readers if each is not node] + node.readers
