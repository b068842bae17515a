"""The one walk through a net: trims, and each layer called on the given backend, but for those behind the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.formats.number_format import NumberFormat, Rounding, Trims, trims_of
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.ops import Array, Grid, Ops, Shape, V
from ristretto_cli.wire.messages import TEST


@dataclass
class Run(Generic[V]):
    """What a walk met, as the backend's values; blobs that are not in the graph are left out (see `in_graph`).

    read: for each layer, its bottoms as it found them, before any trim. written: for each layer, its tops right
    behind it, trimmed where it trims. end: each blob as the last layer left it. updates: parameters that
    the pass itself changes. states: what layers keep for the next pass, by the keys of `state_shapes`. loss: the
    weighted sum of all losses, a scalar; None in a net without.
    """

    read: list[tuple[V, ...]] = field(default_factory=list)
    written: list[tuple[V, ...]] = field(default_factory=list)
    end: dict[str, V] = field(default_factory=dict)
    updates: dict[str, V] = field(default_factory=dict)
    states: dict[str, V] = field(default_factory=dict)
    loss: V | None = None


def state_shapes(net: Net) -> dict[str, Shape]:
    """The shapes of what layers keep from one pass to the next, by `layer/i`."""
    return {
        f"{layer.name}/{i}": shape
        for layer in net.layers
        if not layer.is_source
        for i, shape in enumerate(LAYERS.get(layer.type).states(layer))
    }


def forward(
    net: Net, ops: Ops[V], feeds: Mapping[str, V], *, rng: np.random.Generator, states: Mapping[str, V] | None = None
) -> Run[V]:
    """Run the net's layers in order on a backend.

    feeds: a value for each of net.inputs in the graph, by name. rng: drives the stochastic rounding of weights.
    states: what the last pass left, by the keys of state_shapes; zeros if not given.
    """
    return _Walk(net, ops, rng, states or {}).run(feeds)


class _Walk(Generic[V]):
    def __init__(self, net: Net, ops: Ops[V], rng: np.random.Generator, states: Mapping[str, V]) -> None:
        self._net = net
        self._ops = ops
        self._rng = rng
        self._states = states
        self._memory: dict[int, V] = {}
        self._run: Run[V] = Run()

    def run(self, feeds: Mapping[str, V]) -> Run[V]:
        for layer in self._net.layers:
            with self._ops.scope(layer.name):
                self._run.read.append(self._load(in_graph(layer.bottoms)))
                if layer.is_source:
                    tops: Sequence[V] = [feeds[top.name] for top in in_graph(layer.tops)]
                else:
                    tops = () if layer.on_host else self._compute(layer)
                self._store(in_graph(layer.tops), tops)
                self._run.written.append(tuple(tops))
                self._add_losses(layer, tops)
        blobs = {blob.name: blob for layer in self._net.layers for blob in in_graph(layer.tops)}
        self._run.end = dict(zip(blobs, self._load(list(blobs.values())), strict=True))
        return self._run

    def _load(self, blobs: Sequence[Blob]) -> tuple[V, ...]:
        values = ((blob.shape, self._memory[blob.storage]) for blob in blobs)
        return tuple(v if v.shape == shape else self._ops.reshape(v, shape) for shape, v in values)

    def _store(self, blobs: Sequence[Blob], values: Sequence[V]) -> None:
        for blob, value in zip(blobs, values, strict=True):
            self._memory[blob.storage] = value

    def _compute(self, layer: Layer) -> Sequence[V]:
        layer_type = LAYERS.get(layer.type)
        if not layer_type.trims:
            params = self._params(layer, None)
            bottoms = self._load(layer.bottoms)
            keys = [f"{layer.name}/{i}" for i in range(len(layer_type.states(layer)))]
            if keys and self._states:
                kept = [self._states[key] for key in keys]
                tops, states = layer_type.forward_from(self._ops, layer, bottoms, params, kept)
                self._run.states.update(zip(keys, states, strict=True))
            else:
                tops = layer_type.forward(self._ops, layer, bottoms, params)
            for i, value in layer_type.updates(self._ops, layer, bottoms, params).items():
                self._run.updates[layer.params[i].key] = value
            return tops
        trims = trims_of(layer.message.quantization_param)
        params = self._params(layer, trims)
        if layer.phase != TEST:  # in training only the parameters are trimmed
            return layer_type.forward(self._ops, layer, self._load(layer.bottoms), params)
        if trims.layer_in is not None:
            for blob in layer.bottoms:
                (value,) = self._load([blob])
                self._store([blob], [trims.layer_in.trim(self._ops, value, trims.rounding)])
        tops = layer_type.forward(self._ops, layer, self._load(layer.bottoms), params)
        if trims.layer_out is None:
            return tops
        return [trims.layer_out.trim(self._ops, top, trims.rounding) for top in tops]

    def _params(self, layer: Layer, trims: Trims | None) -> list[V]:
        """The layer's parameters; with trims, the weights and the bias in their formats."""
        values = []
        for i, param in enumerate(layer.params):
            array = self._net.weights[param.key].reshape(param.shape)
            grid: Grid | None = None
            number_format = None if trims is None else trims.weights if i == 0 else trims.bias
            if trims is not None and number_format is not None:
                rounding = trims.rounding if layer.phase == TEST else Rounding.STOCHASTIC
                array, grid = _trim_array(array, number_format, rounding, self._rng), number_format.grid()
            values.append(self._ops.constant(array, grid=grid))
        return values

    def _add_losses(self, layer: Layer, tops: Sequence[V]) -> None:
        ops = self._ops
        weights = [weight for top, weight in zip(layer.tops, layer.loss_weights, strict=True) if not top.on_host]
        for value, weight in zip(tops, weights, strict=True):
            if weight == 0:
                continue
            total = ops.reshape(ops.sum(value, range(len(value.shape))), ()) if value.shape else value
            weighted = ops.mul(total, ops.constant(weight))
            self._run.loss = weighted if self._run.loss is None else ops.add(self._run.loss, weighted)


def _trim_array(array: Array, number_format: NumberFormat, rounding: Rounding, rng: np.random.Generator) -> Array:
    return number_format.trim(numpy_ops(rng), array, rounding)
