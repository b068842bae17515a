"""Work shared by nets with equal first layers: the activations at a cut point are cached and reused."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ristretto_cli.backends.onnx import Node
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run, state_shapes
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.net.reshape import with_likely_shapes
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.array_cache import ArrayCache, CachedArrays
from ristretto_cli.scoring.engine import CutPoint

_MIN_SAVED_FRACTION = 0.2  # of the multiply-accumulates
_MAX_ACTIVATIONS = 4  # times the size of the net's inputs
_SETTINGS = ("message", "phase", "bottoms", "tops")


class Prefix:
    """The layers before a cut point, and the activations there of one pass, batch by batch."""

    def __init__(self, cut_point: CutPoint, cache: ArrayCache) -> None:
        self.cut_point = cut_point
        self.cached: list[CachedArrays] = []
        self._cache = cache
        self._usable = True

    def store(self, activations: Mapping[str, AnyArray], *, has_own_shapes: bool = True) -> None:
        """Cache the activations of the next batch; if the cache is full, those of earlier batches are dropped.

        has_own_shapes: whether the batch has the shapes of the net. Otherwise no net resumes here: it would not know
        the shapes of the layers before.
        """
        self._usable = self._usable and has_own_shapes
        cached = self._cache.put(activations) if self._usable else None
        if cached is None:
            self.cached.clear()
        else:
            self.cached.append(cached)

    def is_valid_for(self, net: Net, float_net: Net, iterations: int) -> bool:
        """Whether a net can resume from these activations, which float_net computed."""
        return (
            len(self.cached) == iterations
            and first_difference(net, float_net) >= self.cut_point.layer
            and cut_point_at(net, self.cut_point.layer) == self.cut_point
        )


def worthwhile_cut_point(net: Net, layer: int) -> CutPoint | None:
    """The cut point before a layer, if it saves enough work and needs little memory."""
    cut_point = cut_point_at(net, layer)
    if cut_point is None:
        return None
    macs = [_macs(each) for each in with_likely_shapes(net).layers]
    activations = sum(math.prod(blob.shape) for blob in cut_point.activations.values())
    inputs = sum(math.prod(blob.shape) for blob in in_graph(net.inputs))
    saves = sum(macs[:layer]) >= _MIN_SAVED_FRACTION * sum(macs) > 0
    return cut_point if saves and activations <= _MAX_ACTIVATIONS * inputs else None


def cut_point_at(net: Net, layer: int) -> CutPoint | None:
    """The cut point before the layer at this position; None if resuming there could change a score.

    There is none after losses, layers with a state and host layers, and none where an activation with spatial axes is
    read by other layers than convolutions and inner products: onnxruntime keeps images between convolutions in blocks
    of channels, which changes the order in which other operators add.
    """
    front = net.layers[:layer]
    if state_shapes(net) or any(each.on_host or any(each.loss_weights) for each in front):
        return None
    produced = {top.storage: (top, each.is_source) for each in front for top in in_graph(each.tops)}
    needed = _needed(net, layer)
    activations = [produced[storage][0] for storage in sorted(needed & produced.keys()) if not produced[storage][1]]
    storages = {blob.storage for blob in activations}
    for reader in net.layers[layer:]:
        reads_image = any(blob.storage in storages and len(blob.shape) > 2 for blob in in_graph(reader.bottoms))
        if reads_image and not LAYERS.get(reader.type).family:
            return None
    taken = {top.name for each in net.layers for top in each.tops}
    inputs = [top for each in net.layers[layer:] if each.is_source for top in each.tops]
    inputs += [top for top, is_source in produced.values() if is_source and top.storage in needed]
    inputs += [blob for blob in net.inputs if blob.on_host]
    return CutPoint(
        layer,
        activations={_name(layer, blob, taken): blob for blob in activations},
        inputs=frozenset(blob.name for blob in inputs),
    )


def _needed(net: Net, layer: int) -> set[int]:
    """The storage that is read by this or a later layer, or at the end."""
    read = {blob.storage for each in net.layers[layer:] for blob in in_graph(each.bottoms)}
    return read | {blob.storage for blob in in_graph(net.outputs)}


def _name(layer: int, blob: Blob, taken: set[str]) -> str:
    name = f"activation {layer} {blob.storage}"
    while name in taken:
        name = f"@{name}"
    return name


def activations_at(cut_point: CutPoint, net: Net, run: Run[Node]) -> dict[str, Node]:
    """The activations at a cut point in a run of the whole net, by name."""
    last = {
        top.storage: value
        for layer, values in zip(net.layers[: cut_point.layer], run.outputs, strict=False)
        for top, value in zip(in_graph(layer.tops), values, strict=True)
    }
    return {name: last[blob.storage] for name, blob in cut_point.activations.items()}


def first_difference(a: Net, b: Net) -> int:
    """The position of the first layer whose settings, blobs or weights differ between two nets."""
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


def _macs(layer: Layer) -> int:
    """The multiply-accumulates of a convolution or inner product, an upper bound for a deconvolution; else 0."""
    if layer.is_source or not layer.params or not LAYERS.get(layer.type).family:
        return 0
    weights = layer.params[0].shape
    per_output = weights[1:]
    if layer.message.HasField("inner_product_param"):
        per_output = (math.prod(weights) // int(layer.message.inner_product_param.num_output),)
    return math.prod(layer.tops[0].shape) * math.prod(per_output)
