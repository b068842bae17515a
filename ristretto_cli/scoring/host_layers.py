"""Host layers: computed in numpy after the graph, from its results and from the net's inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.host_layer import Compute, HostLayer, host_loss
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import AnyArray, Array


class Runner(Protocol):
    """Computes values for successive batches."""

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        """The values for one batch, by name. feeds: an array for each input of the net, by name."""


def host_layers(net: Net, blobs: Collection[str]) -> list[tuple[int, Layer]]:
    """The host layers that these blobs depend on, in order, each with its position in the net."""
    wanted = set(blobs)
    found = []
    for i, layer in reversed(list(enumerate(net.layers))):
        if layer.on_host and any(top.name in wanted for top in layer.tops):
            wanted.update(blob.name for blob in layer.bottoms if blob.on_host)
            found.append((i, layer))
    return found[::-1]


def host_losses(net: Net) -> dict[str, float]:
    """The weights of the losses that host layers compute, by the blobs' names; a graph's loss does not include them."""
    return {
        top.name: weight
        for layer in net.layers
        if host_loss(layer) is not None
        for top, weight in zip(layer.tops, layer.loss_weights, strict=True)
        if weight
    }


def total_loss(results: Mapping[str, Array], weights: Mapping[str, float], of_graph: str) -> float:
    """The loss of a batch: that of the graph, if the results have it under this name, and those of host layers."""
    return float(results.get(of_graph, 0.0)) + sum(weight * float(results[name]) for name, weight in weights.items())


class HostLayers:
    """The host layers of a net, ready to compute successive batches.

    start_layer: makes the computation of a layer; `start` by default.
    """

    def __init__(
        self, net: Net, layers: Sequence[Layer], start_layer: Callable[[Layer], Compute] | None = None
    ) -> None:
        self._inputs = [blob.name for blob in net.inputs if blob.on_host]
        self._steps = [(layer, (start_layer or start)(layer)) for layer in layers]

    def run(self, feeds: Mapping[str, AnyArray], graph_bottoms: Sequence[Sequence[Array]]) -> dict[str, Array]:
        """All blobs that are not in the graph, by name. graph_bottoms: for each layer, its bottoms in the graph."""
        blobs: dict[str, Array] = {name: np.asarray(feeds[name], np.float32) for name in self._inputs if name in feeds}
        for (layer, compute), arrays in zip(self._steps, graph_bottoms, strict=True):
            from_graph = iter(arrays)
            bottoms = [blobs[blob.name] if blob.on_host else next(from_graph) for blob in layer.bottoms]
            blobs.update(zip((top.name for top in layer.tops), compute(bottoms), strict=True))
        return blobs


def start(layer: Layer) -> Compute:
    """The computation of a host layer; its errors have the layer's name and line."""
    layer_type = LAYERS.get(layer.type)
    if not isinstance(layer_type, HostLayer):
        raise TypeError(f"{layer.type} is not a host layer")
    with located(layer):
        compute = layer_type.start(layer)

    def run(bottoms: Sequence[Array]) -> Sequence[Array]:
        with located(layer):
            return compute(bottoms)

    return run


@contextmanager
def located(layer: Layer) -> Iterator[None]:
    """Add the layer's name and line to errors."""
    try:
        yield
    except RistrettoError as error:
        raise RistrettoError(f'layer "{layer.name}" ({layer.type}): {error}', where=layer.where) from error


class PostProcessingRunner:
    """Runs a graph, if any of it is needed, and then host layers.

    graph_bottoms: for each host layer, the names of the graph's results that are its bottoms. blobs: the names of the
    blobs outside the graph to return.
    """

    def __init__(
        self, graph: Runner | None, layers: HostLayers, graph_bottoms: Sequence[Sequence[str]], blobs: Collection[str]
    ) -> None:
        self._graph = graph
        self._layers = layers
        self._graph_bottoms = graph_bottoms
        self._blobs = blobs

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        results = {} if self._graph is None else self._graph.run(feeds)
        computed = self._layers.run(feeds, [[results.pop(name) for name in names] for names in self._graph_bottoms])
        return {**results, **{name: computed[name] for name in self._blobs}}
