"""The result of a quantization, and how it is written: prototxt, summary and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ristretto_cli import __version__
from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.caffe_io.weights import WeightsFile
from ristretto_cli.formats.number_format import Role, TrimmingMode, mode_options
from ristretto_cli.net.costs import CostModel, Costs
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.net.widths import Widths, widths_in
from ristretto_cli.quantize.config import QuantizeConfig, SearchKind
from ristretto_cli.quantize.fold import FoldedNet, write_net_weights
from ristretto_cli.quantize.header import header
from ristretto_cli.quantize.layer_search import LayerSearchResult, Point
from ristretto_cli.quantize.margin import Goal, Margin, Unit, scored_by
from ristretto_cli.quantize.pins import Pins, pin_lines
from ristretto_cli.quantize.search import Candidate, Combination, Evaluation, GroupResult, SearchResult
from ristretto_cli.quantize.trimmable import LeftFloat, Trimmable, family_of
from ristretto_cli.scoring.scores import Scores, number, scores_as_json

_SHORT = {Role.LAYER_IN: "in", Role.LAYER_OUT: "out", Role.PARAMS: "params"}
_NOT_SCORED = "not scored"
JSON_VERSION = 1  # raised when a key changes its meaning or goes; new keys leave it
_RULE = "------------------------------"
_MAX_ROWS = 12  # of the table of a search by layers; JSON has all
_MAX_NAMES = 3  # layers of a type named in the summary; JSON has all


@dataclass(frozen=True)
class QuantizationResult:
    """The result of a quantization: the search's, and the quantized net.

    score_blob: the output that nets were compared by; score_meaning: what it is, if that is no output of the net.
    margin: the error margin, with the baseline. These and
    baseline_scores are None if nothing was scored. left_float: the layers with parameters that stay float. folded: the
    float net that was quantized, if normalizations were folded. skipped: layers that the user leaves float. pins: the
    widths that the user gives for parts of layers. by_layer: the result of a search by layers. net, float_file: the
    float net of phase TEST, and its file. scored: the nets that the search by groups scored, in order. seconds: what
    the quantization took.
    """

    config: QuantizeConfig
    mode: TrimmingMode
    score_blob: str | None
    margin: Margin | None
    baseline_scores: Scores | None
    layers: tuple[Trimmable, ...]
    search: SearchResult
    net_file: NetFile
    left_float: tuple[LeftFloat, ...] = ()
    folded: FoldedNet | None = None
    weights: WeightsFile | None = None
    score_meaning: str = ""
    skipped: tuple[Layer, ...] = ()
    pins: Pins = field(default_factory=dict)
    by_layer: LayerSearchResult | None = None
    net: Net | None = None
    seconds: float = 0.0
    float_file: NetFile | None = None
    scored: tuple[tuple[Candidate, Evaluation], ...] = ()

    @property
    def baseline(self) -> float | None:
        """The float net's score; None if it was not scored."""
        return None if self.margin is None else self.margin.baseline

    def write(self) -> None:
        """Write the quantized net to the configured file, atomically; before it, weights that were changed."""
        if self.weights is not None:
            write_net_weights(self.config.weights_quantized, self.net_file, self.weights)
        elif self.folded is not None:
            write_net_weights(self.config.weights_folded, self.folded.net_file, self.folded.weights)
        write_atomically(self.config.model_quantized, self.prototxt())

    def prototxt(self) -> str:
        """The quantized net as text, under a header with its version, trimming mode and weights."""
        return header(self.config, self.net_file.message) + to_text(self.net_file.message)

    def summary_lines(self) -> list[str]:
        """The lines of the original's summary."""
        mode, found, margin = self.mode, self.search, self.margin
        lines = [_RULE, *mode.heading(_NOT_SCORED if margin is None else number(margin.baseline))]
        is_accuracy = margin is None or (margin.goal is Goal.MAX and not self.score_meaning)
        for group in found.groups:
            lines += group.group.title
            if group.skipped:
                others = any(family_of(layer) in group.group.families for layer in self.skipped)
                lines.append(f"none: the net has no {'other' if others else 'such'} layers")
            if group.given:
                lines.append(f"{_bits(group)}bit: \tgiven")
            lines += [
                f"{trial.bits}bit: \t{number(trial.score)}{'*' if trial.stopped else ''}" for trial in group.trials
            ]
        chosen = [(_bits(group), group.group.label) for group in found.groups if not group.skipped]
        if len(found.groups) > 1:
            lines.append(mode.combined_title)
            ends = [","] * (len(chosen) - 1) + [":"]
            lines += [f"{bits}bit {part}{end}" for (bits, part), end in zip(chosen, ends, strict=True)]
            if found.combined is not None:
                lines.append(f"{'Accuracy' if is_accuracy else 'Score'}: {number(found.combined.score)}")
            elif margin is None:
                lines.append(f"Accuracy: {_NOT_SCORED}")
        elif found.combined is not None and found.combined not in found.groups[0].trials:
            lines.append(f"{found.groups[0].bits}bit: \t{number(found.combined.score)}")
        return [*lines, "Please fine-tune."]

    def notes(self) -> list[str]:
        """Lines not in the original's summary: the score and the margin, other outputs, layers left float, file."""
        lines = []
        if any(trial.stopped for group in self.search.groups for trial in group.trials):
            lines.append("* stopped early: the remaining batches could not change whether the candidate passes")
        combined, margin = self.search.combined, self.margin
        if combined is not None and margin is not None:
            lines.append(scored_by(self.score_blob or "", self.score_meaning, margin.goal))
            if not self.config.legacy:  # DIFFERS(D9)
                limited = self.by_layer is not None and self.by_layer.objective.limit is not None
                if not limited:
                    lines.append(margin.verdict(self.score_blob or "", combined.score, passed=combined.passed))
                lines += self._widening_lines(margin, combined) if self.by_layer is None else []
        if self.by_layer is not None:
            lines += self._curve_lines(self.by_layer)
        others = self._other_outputs()
        if others:
            lines.append("Other outputs (float net, quantized net):")
            lines += [f"{blob}: {number(before)}, {number(after)}" for blob, (before, after) in others.items()]
        if self.folded is not None:
            lines += self.folded.lines()
        if self.weights is not None:
            lines.append(f"Corrected weights written to {self.config.weights_quantized}")
        elif self.folded is not None:
            lines.append(f"Folded weights written to {self.config.weights_folded}")
        lines += [f"Pinned: {line}" for line in pin_lines((each.layer for each in self.layers), self.pins)]
        if self.skipped:
            lines.append(f"Skipped: {', '.join(layer.name for layer in self.skipped)}")
        return [*lines, *_left_float_lines(self.left_float), f"Written to {self.config.model_quantized}"]

    def as_json(self) -> dict[str, Any]:
        """The summary, the ranges and integer lengths, and the scores of each trial, for JSON."""
        config, found = self.config, self.search
        corrected = bool(config.weights_quantized)
        return {
            "version": JSON_VERSION,
            "ristretto": __version__,
            "seconds": round(self.seconds, 3),
            "model": config.model,
            "weights": config.weights,
            "model_quantized": config.model_quantized,
            "weights_quantized": config.weights_quantized or None,
            "methods": [each.value for each in config.methods] if corrected else [],
            "calibration_images": config.calibration_images if corrected else None,
            "seed": config.seed if corrected else None,
            "trimming_mode": config.trimming_mode,
            "legacy": config.legacy,
            **{
                name: option.as_json(config.mode_options.get(name, option.default_for(legacy=config.legacy)))
                for name, (option, _) in mode_options().items()
            },
            "search": config.search.value,
            "calibration_iterations": config.calibration_iterations,
            **self._scoring_as_json(),
            "layers": self._layers_as_json(),
            "costs": self._costs_as_json(),
            "groups": [
                {
                    "name": group.group.name,
                    "part": group.group.label,
                    "skipped": group.skipped,
                    "given": group.given,
                    "bits": None if group.skipped else group.bits,
                    "trials": [_evaluation_as_json(trial) for trial in group.trials],
                }
                for group in found.groups
            ],
            "combined": None if found.combined is None else self._combined_as_json(found.combined),
            "widened_from": None if found.narrowest is None else self._combination_as_json(found.narrowest),
            "widenings": [self._combination_as_json(each) for each in found.widenings],
            **({} if self.by_layer is None else self._by_layer_as_json(self.by_layer)),
            "other_outputs": {
                blob: {"float": before, "combined": after} for blob, (before, after) in self._other_outputs().items()
            },
            "folded": None if self.folded is None else self._folded_as_json(self.folded),
            "pinned": {name: {role.value: bits for role, bits in roles.items()} for name, roles in self.pins.items()},
            "skipped": [layer.name for layer in self.skipped],
            "left_float": [asdict(layer) for layer in self.left_float],
            "summary": [*self.summary_lines(), *self.notes()],
        }

    def _folded_as_json(self, folded: FoldedNet) -> dict[str, Any]:
        return {
            "weights": self.config.weights_written,
            "layers": [asdict(each) for each in folded.folded],
            "left": [{"name": each.name, "type": each.type, "reason": each.reason} for each in folded.left],
        }

    def _widening_lines(self, margin: Margin, combined: Evaluation) -> list[str]:
        """Lines on how a combined net that missed the margin was widened, or that no width meets it."""
        found = self.search.narrowest
        if found is None:
            return []
        before = self._widths(found.group_bits)
        lines = []
        if combined is not found.evaluation:
            lines.append(
                f"Widened from the net with {before}, which has {self.score_blob} {number(found.evaluation.score)}."
            )
        if not combined.passed:
            widths = f"the bit widths {','.join(map(str, self.config.bit_widths))}"
            if self.config.search is SearchKind.SMALLEST:
                widths = f"bit widths up to {max(self.config.bit_widths)}"
            goal = "reaches the lowest score" if margin.unit is Unit.DECIBELS else "keeps the error margin"
            lines.append(f"No combination of {widths} was found that {goal}.")
        return lines

    def _curve_lines(self, found: LayerSearchResult) -> list[str]:
        """The costs and scores of some of the nets that were scored, the chosen one included."""
        limit = found.objective.limit
        rows = [("size", "bit operations", "activations", str(self.score_blob), "")]
        for point in _thinned(found.curve, found.chosen):
            note = "chosen" if point is found.chosen else ""
            if not note and limit is None and not point.evaluation.passed:
                note = "misses the error margin"
            elif not note and limit is not None and found.objective.cost(point.costs) > limit:
                note = "exceeds the limit"
            costs = point.costs
            sizes = f"{costs.parameter_bytes / 1000:.1f} kB", f"{costs.bit_operations:.3e}"
            memory = f"{costs.activation_bits / 8000:.1f} kB"
            rows.append((*sizes, memory, number(point.evaluation.score), note))
        columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["Widths by layer:"]
        for row in rows:
            cells = [cell.rjust(size) for cell, size in zip(row[:-1], columns[:-1], strict=True)]
            lines.append("  ".join([*cells, row[-1]]).rstrip())
        if self.config.size_limit_kb is not None:
            size = f"{found.chosen.costs.parameter_bytes / 1000:.1f} kB"
            lines.append(f"The limit is kept: the parameters have {size} of {number(self.config.size_limit_kb)} kB.")
        elif limit is not None:
            lines.append(f"The limit is kept: {found.chosen.costs.bit_operations:.4g} of {limit:.4g} bit operations.")
        elif not found.fits:
            lines.append("No net was found that keeps the error margin.")
        return lines

    def _by_layer_as_json(self, found: LayerSearchResult) -> dict[str, Any]:
        config = self.config
        limited = found.objective.limit is not None
        return {
            "minimize": None if limited else found.objective.minimize.value,
            "size_limit_kb": config.size_limit_kb,
            "bitops_limit": config.bitops_limit,
            "distortion_iterations": found.probe_iterations,
            "curve": [
                {
                    "size_kb": point.costs.parameter_bytes / 1000,
                    "bit_operations": point.costs.bit_operations,
                    "activation_bits": point.costs.activation_bits,
                    "score": point.evaluation.score,
                    "passed": point.evaluation.passed,
                    "chosen": point is found.chosen,
                    "widths": {
                        name: {role.value: bits for role, bits in roles.items()} for name, roles in point.widths.items()
                    },
                }
                for point in found.curve
            ],
        }

    def _widths(self, group_bits: Sequence[int]) -> str:
        groups = zip(self.search.groups, group_bits, strict=True)
        return ", ".join(f"{bits}bit {group.group.label}" for group, bits in groups if not group.skipped)

    def _other_outputs(self) -> dict[str, tuple[float, float]]:
        """The other outputs with a single value, of the float net and of the combined one, by name."""
        combined, baseline = self.search.combined, self.baseline_scores
        if combined is None or baseline is None:
            return {}
        found = {output.blob: output.score for output in combined.scores.outputs}
        return {
            output.blob: (output.score, found[output.blob])
            for output in baseline.outputs
            if output.blob != self.score_blob and output.means.size == 1 and output.blob in found
        }

    def _scoring_as_json(self) -> dict[str, Any]:
        """The scoring settings and the float net's scores; null if nothing was scored."""
        margin, baseline = self.margin, self.baseline_scores
        if margin is None or baseline is None:
            keys = (
                "iterations",
                "error_margin",
                "error_margin_unit",
                "min_sqnr",
                "score",
                "score_goal",
                "ap_version",
                "baseline",
            )
            return dict.fromkeys(keys)
        in_decibels = margin.unit is Unit.DECIBELS
        return {
            "iterations": self.config.iterations,
            "error_margin": None if in_decibels else margin.size,
            "error_margin_unit": None if in_decibels else margin.unit.value,
            "min_sqnr": margin.size if in_decibels else None,
            "score": self.score_blob,
            "score_goal": margin.goal.value,
            "ap_version": self.config.metric_options.ap_version.value,
            "baseline": {"score": margin.baseline, **scores_as_json(baseline)},
        }

    def _layers_as_json(self) -> dict[str, Any]:
        widths = self._widths_by_layer()
        return {each.layer.name: self._layer_as_json(each, widths.get(each.layer.name)) for each in self.layers}

    def _widths_by_layer(self) -> dict[str, Widths]:
        """The widths of the quantized layers, by name."""
        found = {message.name: widths_in(message) for message in self.net_file.message.layer}
        return {name: widths for name, widths in found.items() if widths is not None}

    def _costs_as_json(self) -> dict[str, Any] | None:
        """The costs of the float net and of the quantized net, for one input; None if the net is not given."""
        if self.net is None:
            return None
        model, widths = CostModel(self.net), self._widths_by_layer()
        return {
            "float": _costs_as_json(model.of_net([None] * len(self.net.layers))),
            "quantized": _costs_as_json(model.of_net([widths.get(layer.name) for layer in self.net.layers])),
        }

    def _layer_as_json(self, each: Trimmable, widths: Widths | None) -> dict[str, Any]:
        lengths = self.mode.integer_lengths(each.ranges)
        written = next(layer for layer in self.net_file.message.layer if layer.name == each.layer.name)
        return {
            "family": each.family,
            "max_in": each.ranges.layer_in,
            "max_out": each.ranges.layer_out,
            "max_params": each.ranges.params,
            "bits": None if widths is None else widths.as_json(),
            **{f"il_{_SHORT[role]}": bits for role, bits in lengths.items()},
            "quantization_param": {
                field.name: enum_name(written.quantization_param, field.name) if field.enum_type else value
                for field, value in written.quantization_param.ListFields()
            },
        }

    def _combination_as_json(self, combination: Combination) -> dict[str, Any]:
        return {**_evaluation_as_json(combination.evaluation), "bits": self._bits_as_json(combination.group_bits)}

    def _bits_as_json(self, group_bits: Sequence[int]) -> dict[str, int]:
        groups = zip(self.search.groups, group_bits, strict=True)
        return {group.group.name: bits for group, bits in groups if not group.skipped}

    def _combined_as_json(self, combined: Evaluation) -> dict[str, Any]:
        bits = self._bits_as_json([group.bits for group in self.search.groups])
        worse_by = None if self.margin is None else self.margin.missed_by(combined.score)
        return {**_evaluation_as_json(combined), "bits": bits, "worse_by": worse_by}


def _thinned(curve: Sequence[Point], chosen: Point) -> list[Point]:
    """About _MAX_ROWS points of a curve, evenly spread, with the chosen one."""
    step = -(-len(curve) // _MAX_ROWS)
    at = next(i for i, point in enumerate(curve) if point is chosen) % step
    return list(curve[at::step])


def _bits(group: GroupResult) -> str:
    """The width of a group as text; a range if those of its layers differ."""
    return str(group.bits) if group.lowest is None else f"{group.lowest}-{group.bits}"


def _costs_as_json(costs: Costs) -> dict[str, Any]:
    return {
        "parameter_bytes": costs.parameter_bytes,
        "bit_operations": costs.bit_operations,
        "activation_bits": costs.activation_bits,
    }


def _evaluation_as_json(trial: Evaluation) -> dict[str, Any]:
    return {
        "bits": trial.bits,
        "score": trial.score,
        "passed": trial.passed,
        "iterations": trial.scores.iterations,
        **scores_as_json(trial.scores),
    }


def _left_float_lines(layers: Sequence[LeftFloat]) -> list[str]:
    """The layers left float, the types with most parameters first."""
    by_type: dict[str, list[LeftFloat]] = {}
    for layer in layers:
        by_type.setdefault(layer.type, []).append(layer)
    shares = {layer_type: sum(layer.share for layer in found) for layer_type, found in by_type.items()}
    lines = []
    for layer_type in sorted(by_type, key=lambda each: -shares[each]):
        names = [layer.name for layer in by_type[layer_type]]
        more = len(names) - _MAX_NAMES
        named = ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
        macs = sum(layer.macs_share for layer in by_type[layer_type])
        of_macs = f"{_percent(macs)} of the MACs" if macs else "no MACs"
        lines.append(f"{named} ({layer_type}): {_percent(shares[layer_type])} of the parameters, {of_macs}")
    return ["Left float:", *lines] if lines else []


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
