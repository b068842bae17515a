"""The interpreter of a net: quantizes, and calls each layer except host layers on the given backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

import numpy as np

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.formats.number_format import NumberFormat, Rounding
from ristretto_cli.layers.host_layer import HostLayer, host_loss
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer, Net, Param, in_graph
from ristretto_cli.net.param_formats import ParamFormat, ParamQuantizer, param_formats
from ristretto_cli.net.reshape import reshaped
from ristretto_cli.ops import Array, Ops, Shape, V


@dataclass
class Run(Generic[V]):
    """The values of a run on a backend; blobs that are not in the graph are omitted (see `in_graph`).

    inputs: for each layer, its bottoms before quantization. outputs: for each layer, its tops right after it,
    quantized if the layer does that. final: each blob after the last layer that writes it. updates: parameters that
    the pass itself changes. states: the layers' states for the next pass, by the keys of `state_shapes`. loss: the
    weighted sum of all losses, a scalar; None in a net without losses.
    """

    inputs: list[tuple[V, ...]] = field(default_factory=list)
    outputs: list[tuple[V, ...]] = field(default_factory=list)
    final: dict[str, V] = field(default_factory=dict)
    updates: dict[str, V] = field(default_factory=dict)
    states: dict[str, V] = field(default_factory=dict)
    loss: V | None = None


def state_shapes(net: Net) -> dict[str, Shape]:
    """The shapes of the states that layers keep between passes, by `layer/i`."""
    return {
        f"{layer.name}/{i}": shape
        for layer in net.layers
        if not layer.is_source
        for i, shape in enumerate(LAYERS.get(layer.type).states(layer))
    }


@dataclass(frozen=True)
class ResumePoint(Generic[V]):
    """A point in a net to resume from. layer: the position of the first layer to run.

    memory: the values at this point of the blobs that are still read, by Blob.storage; blobs that only a data layer
    wrote may be omitted.
    """

    layer: int
    memory: Mapping[int, V]


def forward(
    net: Net,
    ops: Ops[V],
    feeds: Mapping[str, V],
    *,
    rng: np.random.Generator,
    states: Mapping[str, V] | None = None,
    resume_from: ResumePoint[V] | None = None,
    params: Mapping[str, V] | None = None,
    trim_activations: bool = False,
    round_to_nearest: bool = False,
    copy_top: Callable[[V], V] | None = None,
    keep: Collection[str] | None = None,
    compute_loss: Callable[[Layer, Sequence[V]], V] | None = None,
    to_array: Callable[[V], Array] | None = None,
) -> Run[V]:
    """Run the net's layers in order on a backend.

    feeds: a value for each of net.inputs in the graph, by name; the net takes their shapes. rng: for stochastic
    rounding of weights. states: those of the previous pass, by the keys of state_shapes; zeros by default. resume_from:
    where to begin; of the layers before it only data layers run, and the Run has no values of the others. params:
    values to train, by Param.key, instead of net.weights; gradients pass through their rounding as their format says.
    trim_activations: quantize them in phase TRAIN too, even if the layer's formats do not require it. round_to_nearest:
    for parameters in phase TRAIN, instead of stochastically. copy_top: copies a top; without it, a layer that changes
    nothing returns the value that it reads.
    keep: the names of the blobs needed at the end; all others are released after their last reader, and the Run's
    `inputs` and `outputs` stay empty. compute_loss: computes the top of a HostLoss from its bottoms in the graph;
    without it, the Run has no values of such layers, and its loss does not include them. to_array: gives the elements
    of a value, on a backend that computes at once; host layers that feed the graph need it.
    """
    in_training = Rounding.NEAREST if round_to_nearest else Rounding.STOCHASTIC
    resume_from = resume_from or ResumePoint(0, {})
    interpreter = _Interpreter(
        net,
        ops,
        rng,
        states or {},
        resume_from,
        params or {},
        trim_activations,
        in_training,
        copy_top,
        keep,
        compute_loss,
        to_array,
    )
    return interpreter.run(feeds)


class _Interpreter(Generic[V]):
    def __init__(
        self,
        net: Net,
        ops: Ops[V],
        rng: np.random.Generator,
        states: Mapping[str, V],
        resume_from: ResumePoint[V],
        given: Mapping[str, V],
        trim_activations: bool,
        rounding_in_training: Rounding,
        copy_top: Callable[[V], V] | None,
        keep: Collection[str] | None,
        compute_loss: Callable[[Layer, Sequence[V]], V] | None,
        to_array: Callable[[V], Array] | None,
    ) -> None:
        self._net = net
        self._ops = ops
        self._quantizer = ParamQuantizer(rng)
        self._states = states
        self._resume_from = resume_from
        self._given = given
        self._trim_activations = trim_activations
        self._rounding_in_training = rounding_in_training  # of parameters, overriding the layer's setting
        self._copy_top = copy_top
        self._keep = keep
        self._compute_loss = compute_loss
        self._to_array = to_array
        self._memory: dict[int, V] = {}
        # For blobs that share memory but have their own copy: the copy, and the value then in memory.
        self._own: dict[str, tuple[V, V]] = {}
        self._run: Run[V] = Run()

    def run(self, feeds: Mapping[str, V]) -> Run[V]:
        last_uses = {} if self._keep is None else _last_uses(self._net, self._keep)
        self._reshape({blob.name: tuple(feeds[blob.name].shape) for blob in in_graph(self._net.inputs)})
        for i in range(len(self._net.layers)):
            layer = self._net.layers[i]
            if i == self._resume_from.layer:
                self._memory.update(self._resume_from.memory)
            if i < self._resume_from.layer and not layer.is_source:
                self._run.inputs.append(())
                self._run.outputs.append(())
                continue
            with self._ops.scope(layer.name):
                if self._keep is None:
                    self._run.inputs.append(self._load(in_graph(layer.bottoms)))
                if layer.is_source:
                    tops: Sequence[V] = [feeds[top.name] for top in in_graph(layer.tops)]
                elif not layer.on_host:
                    tops = self._compute(layer)
                elif self._compute_loss is not None and host_loss(layer) is not None:
                    tops = [self._compute_loss(layer, self._bottoms(layer))]
                elif layer.feeds_graph:
                    tops = self._compute_on_host(layer)
                    self._reshape({top.name: tuple(v.shape) for top, v in zip(layer.tops, tops, strict=True)})
                    layer = self._net.layers[i]
                else:
                    tops = ()
                if self._copy_top is not None:
                    tops = [self._copy_top(top) for top in tops]
                self._store(computed_tops(layer, tops), tops)
                if self._keep is None:
                    self._run.outputs.append(tuple(tops))
                self._add_losses(layer, tops)
            for storage in last_uses.get(i, ()):
                self._memory.pop(storage, None)
        known = (blob for layer in self._net.layers for blob in layer.tops if blob.storage in self._memory)
        blobs = {blob.name: blob for blob in known}
        self._run.final = dict(zip(blobs, self._load(list(blobs.values())), strict=True))
        return self._run

    def _load(self, blobs: Sequence[Blob]) -> tuple[V, ...]:
        values = ((blob.shape, self._value(blob)) for blob in blobs)
        return tuple(v if v.shape == shape else self._ops.reshape(v, shape) for shape, v in values)

    def _value(self, blob: Blob) -> V:
        value = self._memory[blob.storage]
        own, stored = self._own.get(blob.name, (value, None))
        return own if stored is value else value

    def _store(self, blobs: Sequence[Blob], values: Sequence[V]) -> None:
        for blob, value in zip(blobs, values, strict=True):
            self._memory[blob.storage] = value
        if self._copy_top is not None:
            self._own.update((b.name, (v, self._memory[b.storage])) for b, v in zip(blobs, values, strict=True))

    def _reshape(self, shapes: Mapping[str, Shape]) -> None:
        """Continue with the net for these shapes of inputs, or of tops of host layers."""
        known = {top.name: top.shape for layer in self._net.layers for top in layer.tops}
        if any(known.get(name, shape) != shape for name, shape in shapes.items()):
            self._net = reshaped(self._net, shapes)

    def _compute_on_host(self, layer: Layer) -> Sequence[V]:
        layer_type = LAYERS.get(layer.type)
        if self._to_array is None or not isinstance(layer_type, HostLayer):
            what = f'layer "{layer.name}" ({layer.type}) makes blobs whose shapes depend on the data'
            raise RistrettoError(f"{what}: other layers can read them only while the net runs", where=layer.where)
        try:
            return layer_type.forward_at_once(self._ops, layer, self._bottoms(layer), self._to_array)
        except LayerError as error:
            raise RistrettoError(f'layer "{layer.name}" ({layer.type}): {error}', where=layer.where) from error

    def _compute(self, layer: Layer) -> Sequence[V]:
        layer_type = LAYERS.get(layer.type)
        if not layer_type.quantized:
            params = self._params(layer)
            bottoms = self._bottoms(layer)
            keys = [f"{layer.name}/{i}" for i in range(len(layer_type.states(layer)))]
            if keys and self._states:
                previous = [self._states[key] for key in keys]
                tops, states = layer_type.forward_from(self._ops, layer, bottoms, params, previous)
                self._run.states.update((key, self._ops.detach(state)) for key, state in zip(keys, states, strict=True))
                return tops
            tops, updates = layer_type.forward_and_updates(self._ops, layer, bottoms, params)
            self._run.updates.update((layer.params[i].key, value) for i, value in updates.items())
            return tops
        formats = layer_type.formats(layer.message)
        params = self._params(layer)
        trims = layer.phase == TEST or self._trim_activations or formats.trains_activations
        if not trims:  # in training only the parameters are quantized
            return layer_type.forward(self._ops, layer, self._bottoms(layer), params)
        if formats.layer_in is not None:
            for blob in layer.bottoms:
                (value,) = self._load([blob])
                self._store([blob], [self._quantize(value, formats.layer_in, formats.rounding)])
        tops = layer_type.forward(self._ops, layer, self._bottoms(layer), params)
        if formats.gradient is not None and layer.phase != TEST:
            rounded = partial(formats.gradient.quantize, self._ops, rounding=Rounding.STOCHASTIC)
            tops = [self._ops.map_gradient(top, rounded) for top in tops]
        if formats.layer_out is None:
            return tops
        count = len(tops) if layer_type.trimmed_tops is None else layer_type.trimmed_tops
        quantized = [self._quantize(top, formats.layer_out, formats.rounding) for top in tops[:count]]
        return [*quantized, *tops[count:]]

    def _bottoms(self, layer: Layer) -> tuple[V, ...]:
        values = self._load(in_graph(layer.bottoms))
        passes = zip(layer.bottoms, passes_gradients(self._net, layer), strict=True)
        passed = [one for blob, one in passes if not blob.on_host]
        if all(passed):
            return values
        return tuple(v if p else self._ops.detach(v) for v, p in zip(values, passed, strict=True))

    def _quantize(self, value: V, number_format: NumberFormat, rounding: Rounding) -> V:
        within = (number_format.lowest, number_format.largest)
        return number_format.learnable(self._ops, value, rounding, within=within)

    def _params(self, layer: Layer) -> list[V]:
        """The layer's parameters, quantized if the layer quantizes them."""
        values = []
        for param, param_format in zip(layer.params, param_formats(layer, self._rounding_in_training), strict=True):
            if param.key in self._given:
                values.append(self._given_param(param, param_format))
                continue
            array = self._net.weights[param.key].reshape(param.shape)
            if param_format is None:
                values.append(self._ops.constant(array))
            else:
                quantized = self._quantizer.quantize(param.key, array, param_format)
                values.append(self._ops.constant(quantized, grid=param_format.number_format.fitted(array).grid()))
        return values

    def _given_param(self, param: Param, param_format: ParamFormat | None) -> V:
        value = self._run.updates.get(
            param.key, self._given[param.key]
        )  # an earlier layer that shares it may have updated it
        if value.shape != param.shape:
            value = self._ops.reshape(value, param.shape)
        if param_format is None:
            return value
        return param_format.number_format.learnable(self._ops, value, param_format.rounding)

    def _add_losses(self, layer: Layer, tops: Sequence[V]) -> None:
        ops = self._ops
        computed = computed_tops(layer, tops)
        weights = [weight for top, weight in zip(layer.tops, layer.loss_weights, strict=True) if top in computed]
        for value, weight in zip(tops, weights, strict=True):
            if weight == 0:
                continue
            total = ops.reshape(ops.sum(value, range(len(value.shape))), ()) if value.shape else value
            weighted = ops.mul(total, ops.constant(weight))
            self._run.loss = weighted if self._run.loss is None else ops.add(self._run.loss, weighted)


def computed_tops(layer: Layer, values: Sequence[V]) -> tuple[Blob, ...]:
    """The tops that have these values in a run: those in the graph, or that of a HostLoss."""
    return layer.tops if values and layer.on_host else in_graph(layer.tops)


def passes_gradients(net: Net, layer: Layer) -> tuple[bool, ...]:
    """For each bottom of a layer, whether a gradient is passed down to its producer."""
    wanted = () if net.force_backward else layer.message.propagate_down
    count = len(layer.bottoms)
    without = {i % count for i in LAYERS.get(layer.type).without_gradient if i < count}
    return tuple(i not in without and (not wanted or wanted[i]) for i in range(count))


def _last_uses(net: Net, keep: Collection[str]) -> dict[int, list[int]]:
    """For each layer's position, the storage that no later layer uses, except that of blobs to keep."""
    last: dict[int, int] = {}
    kept: set[int] = set()
    for i, layer in enumerate(net.layers):
        for blob in (*layer.bottoms, *layer.tops):
            last[blob.storage] = i
            if blob.name in keep:
                kept.add(blob.storage)
    found: dict[int, list[int]] = {}
    for storage, i in last.items():
        if storage not in kept:
            found.setdefault(i, []).append(storage)
    return found
