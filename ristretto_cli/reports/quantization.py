"""The report of a quantization."""

from __future__ import annotations

import importlib
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.net.costs import Costs
from ristretto_cli.net.ir import Net
from ristretto_cli.net.widths import Widths as LayerBits
from ristretto_cli.net.widths import widths_in
from ristretto_cli.quantize.config import QuantizeConfig
from ristretto_cli.quantize.margin import Goal, Margin, Unit
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.quantize.rewrite import apply_bit_widths
from ristretto_cli.quantize.search import Evaluation
from ristretto_cli.reports.charts import chart, colour, emphasis, plain_label, quiet
from ristretto_cli.reports.nets import NetCosts, amount, costs_block, net_sections, size
from ristretto_cli.reports.report import Block, Commands, Facts, Figure, Figures, Lines, Report, Section, Table, Text
from ristretto_cli.scoring.scores import number

_COMBINED, _BY_LAYER = "combined net", "widths by layer"
_MARKERS = "osD^vP"
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_FEW_TICKS = 20  # times that the largest cost is the smallest one, from which 1, 2 and 5 are ticks enough


@dataclass(frozen=True)
class _Scored:
    """A net that was scored. series: the part of the net that its widths are of."""

    series: str
    bits: int | None
    costs: Costs
    evaluation: Evaluation
    chosen: bool


@dataclass(frozen=True)
class _Plot:
    """A chart of the score against a cost. what: its name; unit: without prefix."""

    name: str
    what: str
    unit: str
    cost: Callable[[Costs], float]


def quantization_report(result: QuantizationResult, *, command: str, data_flags: Sequence[str] = ()) -> Report:
    """The report of a quantization.

    command: the command line as typed. data_flags: its flags for images and arrays, for the commands that follow.
    ValueError if the result has no net.
    """
    config, net = result.config, result.net
    if net is None:
        raise ValueError("a result without its net has no report")
    costs = NetCosts(net, _bits_in(result.net_file, net))
    return Report(
        f"Quantization of {Path(config.model).name}",
        f"The net {net.name or Path(config.model).stem} in {config.trimming_mode}.",
        [
            Section("result", "Result", _found(result, costs)),
            Section("request", "Request", _asked(config, command)),
            *_search_sections(result, costs),
            *net_sections(costs),
            Section("next", "Next commands", _next(result, data_flags)),
        ],
    )


def _bits_in(net_file: NetFile, net: Net) -> list[LayerBits | None]:
    """The bits that a quantized net's file gives the layers of the float net."""
    found = {message.name: widths_in(message) for message in net_file.message.layer}
    return [None if layer.is_source else found.get(layer.name) for layer in net.layers]


def _asked(config: QuantizeConfig, command: str) -> list[Block]:
    facts = [
        ("model", config.model),
        ("weights", config.weights),
        ("trimming mode", config.trimming_mode),
        ("search", "none: all widths are given" if config.noscore else config.search.value),
        ("given widths", ", ".join(f"{name} {bits} bits" for name, bits in config.bw.items())),
        ("calibration", _batches(config.calibration_iterations)),
        ("scoring", "none" if config.noscore else _batches(config.iterations)),
        ("procedure", "the original's (--legacy)" if config.legacy else ""),
    ]
    return [
        Commands([("The command of this report", command)]),
        Facts([(term, value) for term, value in facts if value]),
    ]


def _batches(count: int) -> str:
    return f"{count} batch{'es' * (count != 1)}"


def _found(result: QuantizationResult, costs: NetCosts) -> list[Block]:
    blocks: list[Block] = []
    combined, margin = result.search.combined, result.margin
    facts = []
    if combined is not None and margin is not None:
        name = result.score_blob or "score"
        blocks.append(_verdict(result, combined, margin))
        if math.isfinite(margin.baseline):  # not the float net's signal to noise ratio
            facts.append((f"{name}, float net", number(margin.baseline)))
        facts += [
            (f"{name}, quantized net", number(combined.score)),
            ("better scores are", margin.goal.better),
        ]
    else:
        blocks.append(Text("No net was scored: the widths are given, and only ranges were measured."))
    facts += [
        (group.group.label, _widths(group.bits, group.lowest)) for group in result.search.groups if not group.skipped
    ]
    facts.append(("written to", result.config.model_quantized))
    if result.config.weights_written != result.config.weights:
        facts.append(("its weights", result.config.weights_written))
    left = [layer.name for layer in result.left_float]
    if left:
        facts.append(("layers left float", f"{len(left)}, see the summary" if len(left) > 6 else ", ".join(left)))
    lines = [*result.summary_lines(), *result.notes()]
    return [*blocks, Facts(facts), costs_block(costs), Lines("The summary as printed", lines)]


def _verdict(result: QuantizationResult, combined: Evaluation, margin: Margin) -> Text:
    by_layer = result.by_layer
    if by_layer is not None and by_layer.objective.limit is not None:
        fits = by_layer.fits
        return Text(f"The limit on {by_layer.objective.minimize.value} is {'kept' if fits else 'missed'}.", _tone(fits))
    return Text(margin.verdict(result.score_blob or "", combined.score, passed=combined.passed), _tone(combined.passed))


def _tone(good: bool) -> str:
    return "good" if good else "bad"


def _widths(bits: int, lowest: int | None) -> str:
    return f"{bits} bits" if lowest is None else f"{lowest} to {bits} bits"


def _search_sections(result: QuantizationResult, costs: NetCosts) -> list[Section]:
    points, margin = _scored(result, costs), result.margin
    finite = [point for point in points if math.isfinite(point.evaluation.score)]
    if not finite or margin is None:
        return []
    name = result.score_blob or "score"
    rows = [
        (
            point.series,
            "" if point.bits is None else str(point.bits),
            size(point.costs.parameter_bits),
            amount(point.costs.bit_operations),
            f"{number(point.evaluation.score)}{'*' if point.evaluation.stopped else ''}",
            "chosen" if point.chosen else "" if point.evaluation.passed else "misses the margin",
        )
        for point in points
    ]
    columns = ("widths of", "bits", "weights", "bit operations", name, "note")
    notes = "; * marks scores of the first batches only" if any(point.evaluation.stopped for point in points) else ""
    table = Table(f"All nets that were scored: {len(points)}{notes}", columns, rows, frozenset({1, 2, 3, 4}))
    plots = [
        _Plot("score-size", "size of the weights", "B", lambda costs: costs.parameter_bits / 8),
        _Plot("score-operations", "bit operations", "", lambda costs: costs.bit_operations),
    ]
    lines = "The dashed line is the worst score allowed."
    if math.isfinite(margin.baseline):
        lines += " The solid line is the float net."
    figures = [
        Figure(
            f"{name} against {plot.what} of the nets that were scored; parts without widths are float. {lines}",
            chart(plot.name, f"{name} against {plot.what}", partial(_draw, plot, finite, name, margin)),
            table,
        )
        for plot in plots
        if all(plot.cost(point.costs) > 0 for point in finite)
    ]
    return [Section("search", "The search", [Figures(figures)])] if figures else []


def _scored(result: QuantizationResult, costs: NetCosts) -> list[_Scored]:
    """All nets that were scored: those of the search by groups in order, then those of the search by layers."""
    chosen, legacy, float_file = result.search.combined, result.config.legacy, result.float_file
    found = []
    if float_file is None:
        return []
    for candidate, each in result.scored:
        # A mode may write other widths than those that it searches, and leave biases float.
        written = apply_bit_widths(float_file, result.layers, candidate.widths, result.mode, legacy=legacy)
        own = costs.model.of_net(_bits_in(written, costs.net))
        found.append(_Scored(_series(result, each), each.bits, own, each, each is chosen))
    if result.by_layer is not None:
        known = {id(point.evaluation) for point in found}
        found += [
            _Scored(_BY_LAYER, None, point.costs, point.evaluation, point is result.by_layer.chosen)
            for point in result.by_layer.curve
            if id(point.evaluation) not in known
        ]
    return found


def _series(result: QuantizationResult, evaluation: Evaluation) -> str:
    groups = result.search.groups
    if len(groups) == 1:
        return groups[0].group.label
    return next((each.group.label for each in groups if any(one is evaluation for one in each.trials)), _COMBINED)


def _draw(plot: _Plot, points: Sequence[_Scored], score: str, margin: Margin, axes: Any) -> None:
    cost = plot.cost
    largest = max(cost(point.costs) for point in points)
    factor, prefix = next((each for each in _UNITS if largest >= each[0]), _UNITS[-1])
    series = list(dict.fromkeys(point.series for point in points))
    for i, each in enumerate(series):
        own = sorted((p for p in points if p.series == each), key=lambda point: cost(point.costs))
        xs, ys = [cost(p.costs) / factor for p in own], [p.evaluation.score for p in own]
        style = {"color": colour(i), "marker": _MARKERS[i % len(_MARKERS)], "linestyle": "none", "markersize": 5}
        axes.plot(xs, ys, label=plain_label(each), **style)
    for point in points:
        if point.chosen:
            place = [cost(point.costs) / factor], [point.evaluation.score]
            ring = {"markeredgecolor": emphasis(), "markerfacecolor": "none", "markersize": 12, "linestyle": "none"}
            axes.plot(*place, marker="o", label="chosen", **ring)
    if math.isfinite(margin.baseline):
        axes.axhline(margin.baseline, color=quiet(), linewidth=1)
    lowest = _limit(margin)
    if lowest is not None:
        axes.axhline(lowest, color=quiet(), linewidth=1, linestyle="--")
    _log_scale(axes, [cost(point.costs) / factor for point in points])
    axes.set_xlabel(plain_label(f"{plot.what}{f' ({prefix}{plot.unit})' if prefix or plot.unit else ''}"))
    axes.set_ylabel(plain_label(score), parse_math=False)
    for text in axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2).get_texts():
        text.set_parse_math(False)


def _limit(margin: Margin) -> float | None:
    """The worst score within the margin; None if the baseline gives none."""
    if margin.unit is Unit.DECIBELS:
        return margin.size
    if not math.isfinite(margin.baseline):
        return None
    allowed = {Unit.POINTS: margin.size / 100, Unit.PERCENT: abs(margin.baseline) * margin.size / 100}
    distance = allowed.get(margin.unit, margin.size)
    return margin.baseline - distance if margin.goal is Goal.MAX else margin.baseline + distance


def _log_scale(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers at its ticks."""
    ticker: Any = importlib.import_module("matplotlib.ticker")
    axes.set_xscale("log")
    narrow = max(values) < _FEW_TICKS * min(values)
    steps = (1, 1.5, 2, 3, 4, 6, 8) if narrow else (1, 2, 5)
    axes.set_xlim(min(values) * 0.85, max(values) * 1.18)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _next(result: QuantizationResult, data_flags: Sequence[str]) -> list[Block]:
    config = result.config
    model, weights = config.model_quantized, config.weights_written
    test = ["ristretto", "test", "--model", model]
    if result.margin is not None:
        test += ["--iterations", str(config.iterations)]
    test += data_flags
    stem = Path(model).with_suffix("")
    train = ["ristretto", "train", "--solver", "solver.prototxt", "--weights", weights, "--rename_weights"]
    export = ["ristretto", "export", "--format", "onnx", "--model", model, "--output", f"{stem}.onnx"]
    commands = [
        ("Score the quantized net", test),
        (
            "Compare it with the float net, without labels",
            [*test, "--against", config.model, "--against_weights", config.weights],
        ),
        ("Fine-tune it with a solver file that names it as its net", [*train, "--report", "training.html"]),
        ("Export it as an ONNX graph", export),
    ]
    blocks: list[Block] = []
    if result.search.combined is not None and result.margin is not None and not result.search.combined.passed:
        blocks.append(
            Text(
                "The net misses the error margin. Wider widths (--bw, --bit_widths), widths by layer (--search "
                "layers), corrected weights (--weights_quantized) or fine-tuning may help."
            )
        )
    return [*blocks, Commands([(purpose, shlex.join(words)) for purpose, words in commands])]
