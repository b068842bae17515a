"""Analysis of a trimmed net: the error of each part of each layer, and what it does to the net's predictions."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_weight_files
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.formats.number_format import NumberFormat, Role
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.forward import ResumePoint, Run, forward
from ristretto_cli.net.ir import Net, in_graph
from ristretto_cli.net.weights import load_weights
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.quantize.distortion import Prediction, prediction_at, predictions_of
from ristretto_cli.quantize.part_error import PartError, Sums, decibels, ends_of, part_error, sums_of
from ristretto_cli.quantize.prepare import net_on_train_data
from ristretto_cli.quantize.role_nets import Part, PartFormat, RoleNets, is_trimmed
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.evaluation import OnBatch, ignore_progress, run_batches
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.metrics import default_score, heads
from ristretto_cli.scoring.predictions import predictions
from ristretto_cli.scoring.samples import readers_drop_negatives, sampled
from ristretto_cli.scoring.user_data import UserData, check_has_data
from ristretto_cli.sources.open import DataLayers

log = logging.getLogger("ristretto")

_SIDES = (Role.LAYER_IN, Role.LAYER_OUT)
_NETS_AT_ONCE = 20  # that one session runs, beside the float net
_SCREENED = 4  # one batch of so many shows which parts are worth measuring on all
_NEGLIGIBLE = 0.1  # of the largest divergence
_FLOAT = "float"


@dataclass(frozen=True)
class AnalysisOptions:
    """Options of an analysis. iterations: the number of batches. target_sqnr: in dB, for the bits needed.

    leave_one_out: whether to measure the trimmed net with each layer float. all_batches: measure all parts on all
    batches, so that two nets can be compared. data: the user's, for inputs of the net.
    """

    iterations: int
    target_sqnr: float = 30.0
    leave_one_out: bool = False
    all_batches: bool = False
    data: UserData | None = None
    execution: Execution = DEFAULT
    on_batch: OnBatch = ignore_progress


@dataclass(frozen=True)
class Damage:
    """What a net's predictions lose against the float net's.

    divergence: the mean over the images of the Kullback-Leibler divergence of class probabilities, or else the squared
    error relative to the mean square. agreement: the share of predictions with the class of the float net, None without
    classes. score: the value of the score's output, and float_score that of the float net on the same batches, None
    without labels. batches: on how many it was measured.
    """

    divergence: float
    agreement: float | None
    score: float | None
    float_score: float | None
    batches: int

    @property
    def score_change(self) -> float | None:
        """The score relative to that of the float net on the same batches."""
        return None if self.score is None or self.float_score is None else self.score - self.float_score


@dataclass(frozen=True)
class PartAnalysis:
    """A trimmed part of a layer: its format, its error, and the damage if only this part is trimmed.

    reads_data: whether it is an input that comes from the data.
    """

    layer: str
    role: Role
    number_format: NumberFormat
    error: PartError
    damage: Damage
    reads_data: bool = False


@dataclass(frozen=True)
class LayerAnalysis:
    """A trimmed layer. output_sqnr: of its output in the trimmed net against the float net, in dB.

    alone: the damage if only this layer is trimmed. without: if only this layer is float; None unless it was measured.
    """

    layer: str
    output_sqnr: float
    alone: Damage
    without: Damage | None = None


@dataclass(frozen=True)
class NetAnalysis:
    """The analysis of a trimmed net. parts: those that cost most first. layers: in the order of the net.

    float_net: the score of the float net, with no divergence. trimmed: the damage of the whole trimmed net. score: the
    name of the output that scores are of, None without labels. predictions: the blobs that are compared. is_classes:
    whether divergence is that of class probabilities.
    """

    model: str
    weights: str
    iterations: int
    target_sqnr: float
    predictions: tuple[str, ...]
    is_classes: bool
    score: str | None
    float_net: Damage
    trimmed: Damage
    parts: tuple[PartAnalysis, ...]
    layers: tuple[LayerAnalysis, ...]


def has_trimmed_layers(model: str) -> bool:
    """Whether the net of a prototxt has trimmed layers."""
    return any(map(is_trimmed, build(read_net(model), NetState(TEST), DataLayers()).layers))


def analyze(
    model: str, weights: str, options: AnalysisOptions, *, against: tuple[str, str] | None = None
) -> NetAnalysis:
    """The analysis of a trimmed net on the data of TRAIN, or of TEST if there are none, or of the user.

    against: the prototxt and the weights of the float net; by default it is the trimmed net without its quantization.
    Raises RistrettoError(s) for a net without trimmed layers, a float net that does not fit, and missing data.
    """
    rng = np.random.default_rng(0)
    net_file = read_net(model)
    plain = build(net_file, NetState(TEST), DataLayers())
    on_train = net_on_train_data(net_file, DataLayers()) if options.data is None else None
    net = load_weights(on_train or plain, read_weight_files(weights), rng=rng)
    if not any(map(is_trimmed, net.layers)):
        raise RistrettoError(
            "the net has no trimmed layers",
            where=model,
            hint="Trim it first, without scoring if you like: ristretto quantize --bw ... --noscore.",
        )
    _check_graph(net)
    check_has_data(net, options.data)
    float_weights = net.weights
    if against is not None:
        _check_float_net(net, build(read_net(against[0]), NetState(TEST), DataLayers()))
        float_weights = load_weights(net, read_weight_files(against[1]), rng=rng, check_formats=False).weights
    if options.data is not None:
        options = replace(options, iterations=options.data.iterations(net, options.iterations, "Analysis"))
    nets = RoleNets(net, float_weights, rng=rng)
    return _Analysis(nets, options, CachedBatches(net, data=options.data, check_labels=False)).run(model, weights)


def _check_graph(net: Net) -> None:
    for layer in net.layers:
        if layer.feeds_graph:
            raise RistrettoError(
                f'layer "{layer.name}" ({layer.type}) computes blobs whose shapes depend on the data, and others read '
                "them: such nets cannot be analyzed",
                where=layer.where,
            )


def _check_float_net(net: Net, other: Net) -> None:
    """RistrettoErrors for trimmed layers of a net that another net lacks, or whose parameters differ there."""
    shapes = {layer.name: [param.shape for param in layer.params] for layer in other.layers}
    raise_all(
        RistrettoError(
            f'layer "{layer.name}" of {net.file} has parameters of other shapes here, or is missing',
            where=other.file,
            hint="--against needs the float net that was trimmed, after any folding. Omit it to compare with the "
            "trimmed net without its quantization.",
        )
        for layer in net.layers
        if is_trimmed(layer) and shapes.get(layer.name) != [param.shape for param in layer.params]
    )


@dataclass
class _Total:
    """The sums of the damage of a net over the batches."""

    divergence: float = 0.0
    agreement: float = 0.0
    score: float = 0.0


@dataclass
class _Measured:
    """What is found of a side of a layer: sums over its values, samples, and its noise in the trimmed net."""

    sums: Sums = field(default_factory=Sums)
    samples: list[Array] = field(default_factory=list)
    signal: float = 0.0
    noise: float = 0.0


class _Analysis:
    def __init__(self, nets: RoleNets, options: AnalysisOptions, batches: CachedBatches) -> None:
        self._nets = nets
        self._net = nets.net(())
        self._all = nets.net(tuple(nets.formats))
        self._options = options
        self._batches = batches
        self._score = default_score(self._net) if heads(self._net) else None
        self._predictions = self._judged()
        blobs = {top.name: top for layer in self._net.layers for top in layer.tops}
        self._has_score = self._score is not None and not blobs[self._score].on_host

    def run(self, model: str, weights: str) -> NetAnalysis:
        """The analysis; model and weights name the net."""
        nets = self._nets
        measured, (float_net, trimmed) = self._measure_values()
        errors = {part: self._error(part, measured) for part in nets.formats}
        damages = self._measure_damages([part for part in nets.formats if not math.isinf(errors[part].sqnr)])
        nothing = float_net
        data = {top.name for layer in self._net.layers if layer.is_source for top in layer.tops}
        parts = [
            PartAnalysis(
                name,
                role,
                each.number_format,
                errors[name, role],
                damages.get(f"part {name}/{role.value}", nothing),
                role is Role.LAYER_IN and any(blob.name in data for blob in self._net.layers[each.layer].bottoms),
            )
            for (name, role), each in nets.formats.items()
        ]
        layers = [
            LayerAnalysis(
                name,
                decibels(measured[position, Role.LAYER_OUT].signal, measured[position, Role.LAYER_OUT].noise),
                damages.get(f"layer {name}", nothing),
                damages.get(f"without {name}", trimmed) if self._options.leave_one_out else None,
            )
            for name, position in nets.layers.items()
        ]
        return NetAnalysis(
            model=model,
            weights=weights,
            iterations=self._options.iterations,
            target_sqnr=self._options.target_sqnr,
            predictions=tuple(self._blob_of(each) for each in self._predictions),
            is_classes=all(each.class_axis is not None for each in self._predictions),
            score=self._score if self._has_score else None,
            float_net=float_net,
            trimmed=trimmed,
            parts=tuple(sorted(parts, key=_cost, reverse=True)),
            layers=tuple(layers),
        )

    def _judged(self) -> list[Prediction]:
        """The predictions to compare, as the metric of a search would."""
        if self._score is not None:
            return predictions_of(self._net, self._score)
        found = predictions(self._net)
        if not found:
            raise RistrettoError("the net has no outputs in the graph to compare", where=self._net.file)
        return [prediction_at(self._net, found[0].blob.name)]

    def _blob_of(self, prediction: Prediction) -> str:
        layer = self._net.layers[prediction.layer]
        return in_graph(layer.tops if prediction.is_top else layer.bottoms)[prediction.bottom].name

    def _error(self, part: Part, measured: Mapping[tuple[int, Role], _Measured]) -> PartError:
        (name, role), each = part, self._nets.formats[part]
        number_format, target = each.number_format, self._options.target_sqnr
        if role in _SIDES:
            found = measured[each.layer, role]
            if not (math.isfinite(found.sums.signal) and math.isfinite(found.sums.high - found.sums.low)):
                side = {Role.LAYER_IN: "input", Role.LAYER_OUT: "output"}[role]
                raise RistrettoError(
                    f'the {side} of layer "{name}" has NaN, infinite or huge values in the float net',
                    where=self._net.layers[each.layer].where,
                    hint="Check the data, its scale and the weights.",
                )
            return part_error(found.sums, np.concatenate(found.samples), number_format, target)
        originals, used = self._nets.params(part)
        sums = sum((sums_of(a, b, number_format) for a, b in zip(originals, used, strict=True)), Sums())
        return part_error(sums, np.concatenate([array.ravel() for array in originals]), number_format, target)

    def _measure_values(self) -> tuple[dict[tuple[int, Role], _Measured], tuple[Damage, Damage]]:
        """The values of the layers' inputs and outputs, and the damage of the float and of the trimmed net."""
        sizes: list[dict[str, int]] = []  # for each time that the net is compiled, the number of elements by result
        positions = list(self._nets.layers.values())
        found = {(position, role): _Measured() for position in positions for role in _SIDES}

        def select(run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
            number, feeds = len(sizes), _feeds(self._net, run)
            base = self._forward(self._net, ops, feeds)
            trimmed = self._forward(self._all, ops, feeds)
            sizes.append({})
            picked: dict[str, Node] = {}
            for position in positions:
                for role in _SIDES:
                    name = self._net.layers[position].name
                    nodes = _side(self._net, position, role, base, ops)
                    others = _side(self._net, position, role, trimmed, ops)
                    number_format = self._nets.formats.get((name, role))
                    results = _value_nodes(ops, nodes, others, number_format, self._options.iterations)
                    picked.update({f"{number} {position} {role.value} {key}": node for key, node in results.items()})
                    sizes[-1][f"{position} {role.value}"] = math.prod(nodes.shape)
            picked.update(self._judged_nodes(_FLOAT, base, base, 0))
            picked.update(self._judged_nodes("all", trimmed, base, 0))
            return picked

        totals = {_FLOAT: _Total(), "all": _Total()}
        for results in self._run(select, self._options.iterations, "values"):
            self._add_damage(totals, results)
            for number, size in enumerate(sizes):
                for position, role in found:
                    start = f"{number} {position} {role.value} "
                    own = {key.removeprefix(start): value for key, value in results.items() if key.startswith(start)}
                    if own:
                        _add(found[position, role], own, size[f"{position} {role.value}"])
        damages = self._damages(totals, self._options.iterations)
        return found, (damages[_FLOAT], damages["all"])

    def _measure_damages(self, parts: Sequence[Part]) -> dict[str, Damage]:
        """The damage with only one of these parts trimmed, with only one layer, and with all but one.

        Parts and layers whose damage on some of the batches is far below the largest are not measured on the others.
        """
        iterations, names = self._options.iterations, list(dict.fromkeys(name for name, _ in parts))
        variants = self._variants(names, parts)
        some = iterations if self._options.all_batches else max(1, iterations // _SCREENED)
        found = self._measure(variants, some, "one part at a time")
        if some < iterations:
            least = _NEGLIGIBLE * max((each.divergence for each in found.values()), default=0.0)
            chosen = {key: variants[key] for key, each in found.items() if each.divergence >= least > 0}
            found.update(self._measure(chosen, iterations, "the costliest parts"))
        if self._options.leave_one_out:
            found.update(self._measure(self._all_but_one(names), iterations, "all layers but one"))
        for name in names:  # a layer with a single part
            own = [part for part in parts if part[0] == name]
            if len(own) == 1:
                found[f"layer {name}"] = found[f"part {name}/{own[0][1].value}"]
        return found

    def _measure(self, variants: Mapping[str, _Variant], iterations: int, label: str) -> dict[str, Damage]:
        """The damage of some nets."""
        found: dict[str, Damage] = {}
        keys = list(variants)
        groups = [keys[i : i + _NETS_AT_ONCE] for i in range(0, len(keys), _NETS_AT_ONCE)]
        for number, group in enumerate(groups, 1):
            totals = {key: _Total() for key in (_FLOAT, *group)}

            def select(run: Run[Node], ops: OnnxOps, group: Sequence[str] = group) -> dict[str, Node]:
                feeds = _feeds(self._net, run)
                base = self._forward(self._net, ops, feeds)
                picked = self._judged_nodes(_FLOAT, base, base, 0)
                for key in group:
                    net, start = variants[key].net, variants[key].start
                    resumed = self._forward(net, ops, feeds, _resume_point(self._net, start, base))
                    picked.update(self._judged_nodes(key, resumed, base, start))
                return picked

            for results in self._run(select, iterations, f"{label}, {number} of {len(groups)}"):
                self._add_damage(totals, results)
            found.update(self._damages(totals, iterations))
            del found[_FLOAT]
        return found

    def _variants(self, layers: Sequence[str], parts: Sequence[Part]) -> dict[str, _Variant]:
        found: dict[str, _Variant] = {}
        for name in layers:
            start, own = self._nets.layers[name], [part for part in parts if part[0] == name]
            for part in own:
                found[f"part {name}/{part[1].value}"] = _Variant(self._nets.net([part]), start)
            if len(own) > 1:
                found[f"layer {name}"] = _Variant(self._nets.net(own), start)
        return found

    def _all_but_one(self, layers: Sequence[str]) -> dict[str, _Variant]:
        parts = tuple(self._nets.formats)
        return {
            f"without {name}": _Variant(self._nets.net([part for part in parts if part[0] != name]), 0)
            for name in layers
        }

    def _run(
        self, select: Callable[[Run[Node], OnnxOps], dict[str, Node]], iterations: int, label: str
    ) -> Iterator[dict[str, Array]]:
        rng, options = np.random.default_rng(0), self._options
        runner = compile_net(self._net, select, rng=rng, execution=options.execution)
        with self._batches.reader() as reader:
            yield from run_batches(runner, reader, iterations, label=label, on_batch=options.on_batch)

    @staticmethod
    def _forward(
        net: Net, ops: OnnxOps, feeds: Mapping[str, Node], resume: ResumePoint[Node] | None = None
    ) -> Run[Node]:
        return forward(net, ops, feeds, rng=np.random.default_rng(0), resume_from=resume)

    def _judged_nodes(self, key: str, run: Run[Node], base: Run[Node], start: int) -> dict[str, Node]:
        """What tells the damage of a run that was resumed at a layer; predictions before it are the float net's."""
        runs = [run if each.layer >= start else base for each in self._predictions]
        picked = {f"{key} {i}": each.value(runs[i]) for i, each in enumerate(self._predictions)}
        if self._has_score and self._score is not None:
            picked[f"{key} score"] = run.final.get(self._score, base.final[self._score])
        return picked

    def _add_damage(self, totals: Mapping[str, _Total], results: Mapping[str, AnyArray]) -> None:
        count = len(self._predictions)
        expected = [each.rows(results[f"{_FLOAT} {i}"]) for i, each in enumerate(self._predictions)]
        for key, total in totals.items():
            for i, each in enumerate(self._predictions):
                rows = each.rows(results[f"{key} {i}"])
                # Rounding may give a divergence just below 0.
                total.divergence += max(0.0, each.distortion([rows], [expected[i]])) / count
                if each.class_axis is not None:
                    total.agreement += float((rows.argmax(1) == expected[i].argmax(1)).mean()) / count
            if self._has_score:
                total.score += float(results[f"{key} score"].mean())

    def _damages(self, totals: Mapping[str, _Total], iterations: int) -> dict[str, Damage]:
        has_classes = all(each.class_axis is not None for each in self._predictions)
        return {
            key: Damage(
                total.divergence / iterations,
                total.agreement / iterations if has_classes else None,
                total.score / iterations if self._has_score else None,
                totals[_FLOAT].score / iterations if self._has_score else None,
                iterations,
            )
            for key, total in totals.items()
        }


@dataclass(frozen=True)
class _Variant:
    """A net to measure. start: the position of its first layer that differs from the float net's."""

    net: Net
    start: int


def _cost(part: PartAnalysis) -> tuple[float, float]:
    """What parts are sorted by: the divergence, and for equal ones the noise."""
    return part.damage.divergence, -part.error.sqnr


def _feeds(net: Net, run: Run[Node]) -> dict[str, Node]:
    """The inputs of a net, from a recorded run of it."""
    sources = (
        zip(in_graph(layer.tops), tops, strict=True)
        for layer, tops in zip(net.layers, run.outputs, strict=True)
        if layer.is_source
    )
    return {top.name: value for top, value in itertools.chain(*sources)}


def _resume_point(net: Net, layer: int, run: Run[Node]) -> ResumePoint[Node]:
    """The point before a layer, with the values of a run of the whole net."""
    memory = {
        top.storage: value
        for each, values in zip(net.layers[:layer], run.outputs, strict=False)
        for top, value in zip(in_graph(each.tops), values, strict=True)
    }
    return ResumePoint(layer, memory)


def _side(net: Net, position: int, role: Role, run: Run[Node], ops: OnnxOps) -> Node:
    """The values of a layer's inputs or outputs that matter, (n,): without negative ones if readers drop them."""
    layer = net.layers[position]
    values = list((run.inputs if role is Role.LAYER_IN else run.outputs)[position])
    if role is Role.LAYER_OUT:
        for i, top in enumerate(layer.tops):
            if readers_drop_negatives(net, position, top.name):
                values[i] = ops.relu(values[i])
    flat = [ops.reshape(value, (math.prod(value.shape),)) for value in values]
    return flat[0] if len(flat) == 1 else ops.concat(flat, 0)


def _value_nodes(
    ops: OnnxOps, values: Node, trimmed: Node, part: PartFormat | None, iterations: int
) -> dict[str, Node]:
    """Scalars about values of the float net, (n,): without a format only those of the noise in the trimmed net."""

    def reduced(op: str, value: Node) -> Node:
        return ops.graph.record(op, [value], [()], keepdims=0)[0]

    def count(*conditions: Node) -> Node:
        ones = ops.constant(1.0)
        for condition in conditions:
            ones = ops.where(condition, ones, ops.constant(0.0))
        return reduced("ReduceSum", ones)

    zero = ops.constant(0.0)
    nodes = {
        "signal": reduced("ReduceSumSquare", values),
        "noise in net": reduced("ReduceSumSquare", ops.sub(trimmed, values)),
    }
    if part is None:
        return nodes
    quantized = part.number_format.quantize(ops, values, part.rounding)
    low, high = (float(np.clip(end, *_FLOAT32)) for end in ends_of(part.number_format))
    magnitude = ops.abs(values)
    is_nonzero = ops.less(zero, magnitude)
    return nodes | {
        "noise": reduced("ReduceSumSquare", ops.sub(quantized, values)),
        "low": reduced("ReduceMin", values),
        "high": reduced("ReduceMax", values),
        "below": count(ops.less(values, ops.constant(low))),
        "above": count(ops.less(ops.constant(high), values)),
        "nonzero": count(is_nonzero),
        "zeroed": count(is_nonzero, ops.equal(quantized, zero)),
        "sample": sampled(ops, values, iterations),
    }


_FLOAT32 = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


def _add(measured: _Measured, results: Mapping[str, AnyArray], size: int) -> None:
    """Add the results of _value_nodes for a batch with so many values."""
    measured.signal += float(results["signal"])
    measured.noise += float(results["noise in net"])
    if "noise" not in results:
        return
    measured.sums += Sums(
        size=size,
        nonzero=float(results["nonzero"]),
        clipped=float(results["below"]) + float(results["above"]),
        zeroed=float(results["zeroed"]),
        signal=float(results["signal"]),
        noise=float(results["noise"]),
        low=float(results["low"]),
        high=float(results["high"]),
    )
    measured.samples.append(np.asarray(results["sample"]))
