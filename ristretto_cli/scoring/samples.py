"""Samples of activations: what the layers that read a value see of it, and how they weight its errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.number_format import Sample
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import AnyArray, Array, Shape

_SIZE = 2**16  # elements of a value, over all batches


@dataclass(frozen=True)
class Seen:
    """What the layers that read a value see of it.

    value: its elements, without those that cannot reach a reader. factors: those by which the reader multiplies each
    channel, (C,) or (1,); None for 1. gate: of the same shape as the value, and zero where the reader drops an element.
    """

    value: Node
    factors: AnyArray | None = None
    gate: Node | None = None

    @property
    def nodes(self) -> Iterator[Node]:
        """The values that have to be sampled."""
        yield self.value
        if self.gate is not None:
            yield self.gate


def seen_by_readers(net: Net, index: int, top: int, value: Node, run: Run[Node]) -> Seen:
    """What the readers of a top of layer `index` see of it; value: the top itself.

    Quantizing and taking a maximum, with others or with 0, may be exchanged, so after a ReLU and a max pooling only the
    elements that are left have errors. A BatchNorm multiplies errors, in each channel by another factor.
    """
    blob = net.layers[index].tops[top].name
    factors: AnyArray | None = None
    while (found := only_reader(net, index, blob)) is not None:
        index, reader = found
        layer_type = LAYERS.get(reader.type)
        blob = reader.tops[0].name if reader.tops else ""
        own = _channel_factors(net, reader)
        if own is not None:
            factors = own if factors is None else factors * own
        elif factors is None and layer_type.keeps_elements(reader):
            value = run.outputs[index][0]
        elif factors is not None and layer_type.is_constant_below_zero(reader):
            return Seen(value, factors, run.outputs[index][0])
        else:
            break
    return Seen(value, factors)


def readers_drop_negatives(net: Net, index: int, blob: str) -> bool:
    """Whether the readers of a blob as layer `index` wrote it compute the same if its negative values are 0: it is read
    by a ReLU only, also after layers that keep elements, such as max pooling."""
    while (found := only_reader(net, index, blob)) is not None:
        index, reader = found
        layer_type = LAYERS.get(reader.type)
        if layer_type.is_constant_below_zero(reader):
            return True
        if not layer_type.keeps_elements(reader):
            return False
        blob = reader.tops[0].name
    return False


def _channel_factors(net: Net, layer: Layer) -> AnyArray | None:
    """By how much a layer multiplies each channel, (C,) or (1,); None if it does anything else."""
    params = [net.weights[param.key].reshape(param.shape) for param in layer.params]
    try:
        affine = LAYERS.get(layer.type).channel_affine(layer, params)
    except LayerError:
        return None
    known = affine is not None and affine.axis in (None, 1) and np.isfinite(affine.scale).all()
    return affine.scale if affine is not None and known else None


def only_reader(net: Net, index: int, blob: str) -> tuple[int, Layer] | None:
    """The only layer, with its position, that reads a blob as layer `index` wrote it; None if none or several do."""
    readers = []
    for i, layer in enumerate(net.layers[index + 1 :], index + 1):
        if blob in (bottom.name for bottom in layer.bottoms):
            readers.append((i, layer))
        if blob in (top.name for top in layer.tops):
            break
    return readers[0] if len(readers) == 1 and not readers[0][1].is_source else None


def sampled(ops: OnnxOps, value: Node, iterations: int) -> Node:
    """Evenly spaced elements of a value, (n,). iterations: the number of batches that are sampled."""
    size = math.prod(value.shape)
    step = _step(value.shape, iterations)
    bounds = [ops.graph.ints([number]) for number in (0, size, 0, step)]
    return ops.graph.record("Slice", [ops.reshape(value, (size,)), *bounds], [(-(-size // step),)])[0]


def joined_sample(values: Sequence[tuple[Sequence[Seen], Mapping[str, Sequence[Array]]]], iterations: int) -> Sample:
    """The sample of some values. values: for each shape of the batches, what is seen, and of each value, by name, the
    sampled elements of each batch.

    Elements without an effect are left out: zeros, which every format has, and those with weight 0.
    """
    parts: list[Array] = [np.empty(0, np.float32)]
    all_weights: list[AnyArray] = [np.empty(0)]
    for seen, elements in values:
        for each in seen:
            step = _step(each.value.shape, iterations)
            batches = elements[each.value.name]
            weight = np.full(len(batches[0]), step, np.float64)
            if each.factors is not None:
                channels = np.arange(len(weight)) * step // math.prod(each.value.shape[2:]) % each.value.shape[1]
                weight *= np.square(each.factors)[channels % len(each.factors)]
            parts += batches
            gates = batches if each.gate is None else elements[each.gate.name]
            all_weights += [np.where(gate == 0, 0.0, weight) for gate in gates]
    value, weights = np.concatenate(parts), np.concatenate(all_weights)
    used = _some(np.flatnonzero((value != 0) & (weights > 0)))
    # Only ratios of weights matter; their squares may exceed float32.
    return Sample(value[used], (weights[used] / weights.max(initial=1e-300)).astype(np.float32))


def pooled_sample(samples: Sequence[Sample]) -> Sample:
    """One sample of the values of several."""
    used = _some(np.arange(sum(len(sample.values) for sample in samples)))
    return Sample(
        np.concatenate([sample.values for sample in samples])[used],
        np.concatenate([sample.weights for sample in samples])[used],
    )


def _some(indices: AnyArray) -> AnyArray:
    """At most _SIZE of them: concatenations of many values have more."""
    return indices if len(indices) <= _SIZE else np.random.default_rng(0).choice(indices, _SIZE, replace=False)


def _step(shape: Shape, iterations: int) -> int:
    """The distance between sampled elements of a value of this shape."""
    size = math.prod(shape)
    step = max(1, size * iterations // _SIZE)
    while math.gcd(step, size) > 1:  # otherwise it would skip some channels or places
        step += 1
    return step
