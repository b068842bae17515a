"""What stands behind the graph: layers computed in numpy, on what the graph made and on what was fed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.host_layer import Compute, HostLayer
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import AnyArray, Array


class Runner(Protocol):
    """What computes values for a batch after the other."""

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        """The values, by their names, for the net's inputs, by theirs."""


def host_layers(net: Net, blobs: Collection[str]) -> list[tuple[int, Layer]]:
    """The layers behind the graph that these blobs depend on, in order, each with its position in the net."""
    wanted = set(blobs)
    found = []
    for i, layer in reversed(list(enumerate(net.layers))):
        if layer.on_host and any(top.name in wanted for top in layer.tops):
            wanted.update(blob.name for blob in layer.bottoms if blob.on_host)
            found.append((i, layer))
    return found[::-1]


class Host:
    """Layers behind the graph, made ready to run one batch after the other.

    make_ready: what does that for a layer; `start` by default.
    """

    def __init__(self, net: Net, layers: Sequence[Layer], make_ready: Callable[[Layer], Compute] | None = None) -> None:
        self._fed = [blob.name for blob in net.inputs if blob.on_host]
        self._steps = [(layer, (make_ready or start)(layer)) for layer in layers]

    def run(self, feeds: Mapping[str, AnyArray], handed: Sequence[Sequence[Array]]) -> dict[str, Array]:
        """All blobs that are not in the graph, by name. handed: for each layer those of its bottoms that are."""
        blobs: dict[str, Array] = {name: np.asarray(feeds[name], np.float32) for name in self._fed if name in feeds}
        for (layer, compute), arrays in zip(self._steps, handed, strict=True):
            from_graph = iter(arrays)
            bottoms = [blobs[blob.name] if blob.on_host else next(from_graph) for blob in layer.bottoms]
            blobs.update(zip((top.name for top in layer.tops), compute(bottoms), strict=True))
        return blobs


def start(layer: Layer) -> Compute:
    """What computes a layer behind the graph; its faults have the layer's name and line."""
    layer_type = LAYERS.get(layer.type)
    if not isinstance(layer_type, HostLayer):
        raise TypeError(f"{layer.type} layers are not behind the graph")
    with _faults_of(layer):
        compute = layer_type.start(layer)

    def run(bottoms: Sequence[Array]) -> Sequence[Array]:
        with _faults_of(layer):
            return compute(bottoms)

    return run


@contextmanager
def _faults_of(layer: Layer) -> Iterator[None]:
    try:
        yield
    except RistrettoError as error:
        raise RistrettoError(f'layer "{layer.name}" ({layer.type}): {error}', where=layer.where) from error


class HostedRunner:
    """A graph's runner, None where nothing of the graph is needed, with layers behind it.

    handed: for each of these layers, the names that runner gives to those of its bottoms that are in the graph.
    kept: the blobs out of the graph that a run is to return, by their names.
    """

    def __init__(
        self, runner: Runner | None, host: Host, handed: Sequence[Sequence[str]], kept: Collection[str]
    ) -> None:
        self._runner = runner
        self._host = host
        self._handed = handed
        self._kept = kept

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        results = {} if self._runner is None else self._runner.run(feeds)
        made = self._host.run(feeds, [[results.pop(name) for name in names] for names in self._handed])
        return {**results, **{name: made[name] for name in self._kept}}
