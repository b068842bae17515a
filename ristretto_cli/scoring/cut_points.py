"""What two nets that begin alike need not compute twice: places to cut a net at, and what is kept of a pass there."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ristretto_cli.backends.onnx import Node
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run, state_shapes
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.array_cache import Kept, Shelf
from ristretto_cli.scoring.engine import Cut

_LEAST_SHARE = 0.2  # of the products that a cut must save
_SETTINGS = ("message", "phase", "bottoms", "tops")
_MOST_KEPT = 4  # times as much as the net's inputs


class Prefix:
    """A cut, and what was kept there of a pass, batch by batch."""

    def __init__(self, cut: Cut, shelf: Shelf) -> None:
        self.cut = cut
        self.kept: list[Kept] = []
        self._shelf = shelf

    def keep(self, values: Mapping[str, AnyArray]) -> None:
        """Keep the values of the next batch; nothing at all where the shelf is full."""
        kept = self._shelf.put(values)
        if kept is None:
            self.kept.clear()
        else:
            self.kept.append(kept)

    def serves(self, net: Net, float_net: Net, iterations: int) -> bool:
        """Whether a net can be run from here, if the pass that was kept was float_net's."""
        return (
            len(self.kept) == iterations
            and first_difference(net, float_net) >= self.cut.layer
            and cut_at(net, self.cut.layer) == self.cut
        )


def cut_that_pays(net: Net, layer: int) -> Cut | None:
    """The cut in front of a layer, if much is saved by it and little is to be kept."""
    cut = cut_at(net, layer)
    if cut is None:
        return None
    products = [_products(each) for each in net.layers]
    kept = sum(math.prod(blob.shape) for blob in cut.kept.values())
    fed = sum(math.prod(blob.shape) for blob in in_graph(net.inputs))
    saves = sum(products[:layer]) >= _LEAST_SHARE * sum(products) > 0
    return cut if saves and kept <= _MOST_KEPT * fed else None


def cut_at(net: Net, layer: int) -> Cut | None:
    """The cut in front of the layer at this position; None where a net cannot be cut without changing a score.

    That is where losses, layers with a state or layers behind the graph stand in front of it, and where more than
    products read images that are kept: between convolutions onnxruntime keeps images in blocks of channels, and how it
    sums up what is in blocks differs.
    """
    front = net.layers[:layer]
    if state_shapes(net) or any(each.on_host or any(each.loss_weights) for each in front):
        return None
    made = {top.storage: (top, each.is_source) for each in front for top in in_graph(each.tops)}
    needed = _needed(net, layer)
    kept = [made[storage][0] for storage in sorted(needed & made.keys()) if not made[storage][1]]
    places = {blob.storage for blob in kept}
    for reader in net.layers[layer:]:
        reads_image = any(blob.storage in places and len(blob.shape) > 2 for blob in in_graph(reader.bottoms))
        if reads_image and not LAYERS.get(reader.type).family:
            return None
    taken = {top.name for each in net.layers for top in each.tops}
    fed = [top for each in net.layers[layer:] if each.is_source for top in each.tops]
    fed += [top for top, is_source in made.values() if is_source and top.storage in needed]
    fed += [blob for blob in net.inputs if blob.on_host]
    return Cut(layer, {_name(layer, blob, taken): blob for blob in kept}, frozenset(blob.name for blob in fed))


def _needed(net: Net, layer: int) -> set[int]:
    """The places in memory that are read at or behind a layer, or at the end."""
    read = {blob.storage for each in net.layers[layer:] for blob in in_graph(each.bottoms)}
    return read | {blob.storage for blob in in_graph(net.outputs)}


def _name(layer: int, blob: Blob, taken: set[str]) -> str:
    name = f"kept {layer} {blob.storage}"
    while name in taken:
        name = f"@{name}"
    return name


def values_at(cut: Cut, net: Net, run: Run[Node]) -> dict[str, Node]:
    """What is to be kept of a run of the whole net, by the cut's names."""
    last = {
        top.storage: value
        for layer, values in zip(net.layers[: cut.layer], run.written, strict=False)
        for top, value in zip(in_graph(layer.tops), values, strict=True)
    }
    return {name: last[blob.storage] for name, blob in cut.kept.items()}


def first_difference(a: Net, b: Net) -> int:
    """The position of the first layer in which two nets differ, by its settings, its blobs or its weights."""
    for i, (one, other) in enumerate(zip(a.layers, b.layers, strict=False)):
        pairs = [(getattr(one, field), getattr(other, field)) for field in _SETTINGS]
        params = (*one.params, *other.params)
        if any(x != y for x, y in pairs) or not all(_is_same(a, b, param.key) for param in params):
            return i
    return min(len(a.layers), len(b.layers))


def _is_same(a: Net, b: Net, key: str) -> bool:
    """Whether a parameter is the same memory in both nets."""
    one, other = a.weights.get(key), b.weights.get(key)
    return one is not None and other is not None and one.__array_interface__ == other.__array_interface__


def _products(layer: Layer) -> int:
    """The multiply-accumulates of a layer, of those that have many; of a deconvolution, more than that."""
    if layer.is_source or not layer.params or not LAYERS.get(layer.type).family:
        return 0
    weights = layer.params[0].shape
    each = weights[1:]
    if layer.message.HasField("inner_product_param"):
        each = (math.prod(weights) // int(layer.message.inner_product_param.num_output),)
    return math.prod(layer.tops[0].shape) * math.prod(each)
