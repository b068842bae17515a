"""Calibration: the ranges of layers' inputs, outputs and parameters, measured over some batches."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.facts import Fact, Facts
from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import Ranges, Role
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.evaluation import OnBatch, ignore_progress, run_batches
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.samples import Seen, joined_sample, readers_drop_negatives, sampled, seen_by_readers
from ristretto_cli.scoring.step_timer import StepTimer

log = logging.getLogger("ristretto")

_HIGHEST, _LOWEST, _SQUARES, _SAMPLE = "highest", "lowest", "sum of squares", "sample"

_SIDES = (Role.LAYER_IN, Role.LAYER_OUT)

_Parts: TypeAlias = list[Node]  # the values whose concatenation is a blob


@dataclass(frozen=True)
class Probe:
    """The values that ranges cover.

    legacy: as in the original, the first bottom and top as they are at the end of the pass, and weights without
    biases. Otherwise, the values that will be quantized: all bottoms before the layer and all tops right after it,
    without their negative values if only a ReLU reads them, directly or after a max pooling; and biases.
    samples: whether samples of the inputs and outputs are taken as well.
    """

    legacy: bool = False
    samples: bool = False


def measure_ranges(
    net: Net,
    layers: frozenset[str],
    iterations: int,
    *,
    probe: Probe,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    batches: CachedBatches | None = None,
    on_batch: OnBatch = ignore_progress,
    timer: StepTimer | None = None,
) -> dict[str, Ranges]:
    """The ranges of the layers with these names, over `iterations` batches from the first record on.

    batches: the inputs; by default those of the net's data layers. Raises RistrettoError if a blob has NaN or infinite
    values; logs a warning for a range of zero.
    """
    # Only one of the layers with a name has parameters.
    chosen = [(i, layer) for i, layer in enumerate(net.layers) if layer.name in layers and layer.params]
    probed: list[_Probed] = []  # for each time that the net is compiled

    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        probed.append(_Probed.of(net, chosen, run, ops, probe, iterations))
        return {f"{len(probed) - 1} {name}": node for name, node in probed[-1].picked.items()}

    timer = timer or StepTimer()
    with timer.measure("building nets"):
        session = compile_net(net, select, rng=rng, execution=execution)
    log.info("Running for %d iterations.", iterations)
    with (batches or CachedBatches(net)).reader() as reader:
        batches_run = run_batches(session, reader, iterations, label="reading ranges", on_batch=on_batch, timer=timer)
        for results in batches_run:
            numbers = {name.partition(" ")[0] for name in results}  # one, or none if no item passes a Filter
            for number in map(int, numbers):
                probed[number].add({name.partition(" ")[2]: array for name, array in results.items()}, net)
    ran = [each for each in probed if each.batches]
    ranges = {}
    for _, layer in chosen:
        ranges[layer.name] = Ranges(
            layer_in=max((each.largest[f"in {layer.name}"] for each in ran), default=0.0),
            layer_out=max((each.largest[f"out {layer.name}"] for each in ran), default=0.0),
            params=_largest_of(net.weights[layer.params[0].key]),
            biases=_biases(net, layer, probe),
            input_energy=0.0 if probe.legacy else sum(each.energy[layer.name] for each in ran) * _fan_in(layer),
            samples={
                role: joined_sample([(each.sampled[layer.name][role], each.elements) for each in ran], iterations)
                for role in _SIDES
                if probe.samples
            },
            never_negative=frozenset(
                role
                for role in _SIDES
                if not probe.legacy and all(each.is_never_negative(layer.name, role) for each in ran)
            ),
        )
        _warn_of_zero_ranges(layer, ranges[layer.name])
    return ranges


@dataclass
class _Probed:
    """The values that are measured in a graph of the net, and what is found of them over its batches.

    places: for each layer, the parts of its inputs and outputs. sampled: what is seen of them. unless_inputs_are: the
    names of values that are negative only if an input is. picked: the results to compute. largest: by side and layer.
    negative: the names of values that were. energy: the sum of the mean squares of each layer's input, relative to the
    number of batches of all graphs, iterations. elements: of each sampled value, by name, those of each batch.
    """

    places: dict[str, tuple[list[_Parts], list[_Parts]]]
    sampled: dict[str, dict[Role, list[Seen]]]
    unless_inputs_are: set[str]
    picked: dict[str, Node]
    iterations: int
    batches: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    negative: set[str] = field(default_factory=set)
    energy: dict[str, float] = field(default_factory=dict)
    elements: dict[str, list[Array]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        net: Net,
        chosen: Sequence[tuple[int, Layer]],
        run: Run[Node],
        ops: OnnxOps,
        probe: Probe,
        iterations: int,
    ) -> _Probed:
        """The values to measure for some layers, each with its position, in a recorded run."""
        picked: dict[str, Node] = {}
        found = cls({}, {}, set(), picked, iterations)
        assumed = Facts(ops.graph)
        for tops in (run.outputs[i] for i, layer in enumerate(net.layers) if layer.is_source):
            for top in tops:
                assumed.declare(top, Fact(low=0.0))
        # onnxruntime runs the nodes recorded last first, so the values of early layers are released early.
        for i, layer in reversed(chosen):
            places = found.places[layer.name] = _inputs_and_outputs(net, i, run, ops, probe)
            for value in itertools.chain(*itertools.chain(*places)):
                if f"{_HIGHEST} {value.name}" not in picked:
                    picked.update({f"{extreme} {value.name}": node for extreme, node in _extremes(ops, value).items()})
                if assumed[value].never_negative:
                    found.unless_inputs_are.add(value.name)
            if probe.samples:
                seen = found.sampled[layer.name] = _seen(net, i, run, *places)
                for each in itertools.chain(*seen.values()):
                    for value in each.nodes:
                        if f"{_SAMPLE} {value.name}" not in picked:
                            picked[f"{_SAMPLE} {value.name}"] = sampled(ops, value, iterations)
        return found

    def add(self, results: Mapping[str, Array], net: Net) -> None:
        """Add the results of a batch; RistrettoError if values are NaN or infinite."""
        self.batches += 1
        for name, (read, written) in reversed(self.places.items()):
            for side, blobs in (("in", read), ("out", written)):
                key = f"{side} {name}"
                values = itertools.chain(*blobs)
                self.largest[key] = max([self.largest.get(key, 0.0), *(_largest(results, value) for value in values)])
                if not math.isfinite(self.largest[key]):
                    _reject(net, key)
            self.energy[name] = self.energy.get(name, 0.0) + _mean_square(results, read[0]) / self.iterations
        for key, array in results.items():
            if key.startswith(f"{_LOWEST} ") and float(array) < 0:
                self.negative.add(key.removeprefix(f"{_LOWEST} "))
            if key.startswith(f"{_SAMPLE} "):
                self.elements.setdefault(key.removeprefix(f"{_SAMPLE} "), []).append(array)

    def is_never_negative(self, layer: str, role: Role) -> bool:
        """Whether the input or the output of a layer was never negative, and can be only if an input of the net is."""
        blobs = self.places[layer][_SIDES.index(role)]
        return {value.name for value in itertools.chain(*blobs)} <= self.unless_inputs_are - self.negative


def _inputs_and_outputs(
    net: Net, index: int, run: Run[Node], ops: OnnxOps, probe: Probe
) -> tuple[list[_Parts], list[_Parts]]:
    """The values whose largest magnitudes are the ranges of a layer's input and output."""
    layer = net.layers[index]
    if probe.legacy:
        read, written = [run.final[layer.bottoms[0].name]], [run.final[layer.tops[0].name]]
    else:
        # DIFFERS(D1): the values that will be quantized, before in-place layers change them.
        read = list(run.inputs[index])
        written = list(run.outputs[index])
        for i, top in enumerate(layer.tops):
            if readers_drop_negatives(net, index, top.name):  # DIFFERS(D3)
                written[i] = ops.relu(written[i])
    joins = [i for i, each in enumerate(net.layers) if each.type == "Concat" and len(each.bottoms) > 1]
    joined = {run.outputs[i][0].name: run.inputs[i] for i in joins}
    return [_parts(value, joined) for value in read], [_parts(value, joined) for value in written]


def _parts(value: Node, joined: Mapping[str, Sequence[Node]]) -> _Parts:
    """The values whose concatenation a value is; most of them are read for their own layers anyway. Without elements
    there are none."""
    if 0 in value.shape:
        return []
    if value.name not in joined:
        return [value]
    return [part for bottom in joined[value.name] for part in _parts(bottom, joined)]


def _extremes(ops: OnnxOps, value: Node) -> dict[str, Node]:
    """Scalars that determine the largest magnitude of a value, in as few fast reductions as possible."""

    def reduced(op: str) -> Node:
        return ops.graph.record(op, [value], [()], keepdims=0)[0]

    extremes = {_HIGHEST: reduced("ReduceMax"), _SQUARES: reduced("ReduceSumSquare")}
    return extremes if Facts(ops.graph)[value].never_negative else {**extremes, _LOWEST: reduced("ReduceMin")}


def _largest(found: Mapping[str, Array], value: Node) -> float:
    """The largest magnitude of a value; infinity if it has NaN."""
    # onnxruntime's ReduceMax skips a NaN that isn't the first element; a sum does not.
    if math.isnan(float(found[f"{_SQUARES} {value.name}"])):
        return math.inf
    highest = float(found[f"{_HIGHEST} {value.name}"])
    return max(highest, -float(found.get(f"{_LOWEST} {value.name}", 0.0)))


def _mean_square(found: Mapping[str, Array], parts: _Parts) -> float:
    squares = math.fsum(float(found[f"{_SQUARES} {part.name}"]) for part in parts)
    return squares / max(1, sum(math.prod(part.shape) for part in parts))


def _seen(
    net: Net, index: int, run: Run[Node], read: Sequence[_Parts], written: Sequence[_Parts]
) -> dict[Role, list[Seen]]:
    """What is seen of the values of a layer's input and output."""
    outputs: list[Seen] = []
    for top, parts in enumerate(written):
        outputs += [seen_by_readers(net, index, top, parts[0], run)] if len(parts) == 1 else map(Seen, parts)
    return {Role.LAYER_IN: [Seen(value) for parts in read for value in parts], Role.LAYER_OUT: outputs}


def _biases(net: Net, layer: Layer, probe: Probe) -> tuple[float, ...]:
    if probe.legacy:
        return ()
    return tuple(float(bias) for param in layer.params[1:] for bias in net.weights[param.key].ravel())


def _fan_in(layer: Layer) -> int:
    """The number of products that are summed for an output."""
    weights, outputs = layer.params[0].shape, layer.message
    if outputs.HasField("inner_product_param"):
        return math.prod(weights) // int(outputs.inner_product_param.num_output)
    return math.prod(weights[1:])


def _largest_of(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def _reject(net: Net, key: str) -> None:
    side, name = key.split(" ", 1)
    where = next(layer.where for layer in net.layers if layer.name == name)
    what = {"in": "input", "out": "output"}[side]
    raise RistrettoError(
        f'the {what} of layer "{name}" has NaN or infinite values during calibration',
        where=where,
        hint="Check the data, its scale and the weights.",
    )


def _warn_of_zero_ranges(layer: Layer, ranges: Ranges) -> None:
    for what, largest in (
        ("its input is", ranges.layer_in),
        ("its output is", ranges.layer_out),
        ("its weights are", ranges.params),
    ):
        if largest == 0:
            log.warning('Layer "%s": %s all zeros, so the range cannot be estimated.', layer.name, what)
