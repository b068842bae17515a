"""The connections of a net's LayerParameters: who writes and who reads each version of a blob."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message


class MessageGraph:
    """The connections of layers in the order of execution, by the names of their blobs; neither shapes nor data."""

    def __init__(self, layers: Sequence[Message]) -> None:
        self._layers = layers
        self._producers: list[list[int | None]] = []  # of each layer, for each bottom, the layer that wrote it
        self._readers: list[list[int]] = [[] for _ in layers]  # of each layer's tops, in order
        current: dict[str, int] = {}
        for i, layer in enumerate(layers):
            self._producers.append([current.get(name) for name in layer.bottom])
            for producer in self._producers[i]:
                if producer is not None:
                    self._readers[producer].append(i)
            current.update(dict.fromkeys(layer.top, i))
        self._indices: dict[str, int] = {layer.name: i for i, layer in reversed(list(enumerate(layers)))}

    def __contains__(self, name: str) -> bool:
        return name in self._indices

    def index(self, name: str) -> int:
        """The position of the layer with a name."""
        return self._indices[name]

    def producer(self, index: int) -> Message | None:
        """The layer that wrote the first bottom of a layer; None if it has none or no layer writes it."""
        producer = self._producers[index][0] if self._producers[index] else None
        return None if producer is None else self._layers[producer]

    def readers(self, index: int) -> list[Message]:
        """The layers that read a top of a layer as it wrote it; one that reads it twice occurs twice."""
        return [self._layers[i] for i in self._readers[index]]
