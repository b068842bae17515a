"""What a search tells: the summary's lines, and all of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ristretto_cli.formats.number_format import Role
from ristretto_cli.quantize.job import Job, Outcome
from ristretto_cli.quantize.plan import LeftFloat, Trimmable
from ristretto_cli.quantize.search import Goal, Margin, Trial
from ristretto_cli.scoring.score import number, scores_as_json
from ristretto_cli.wire.messages import enum_name

_SHORT = {Role.LAYER_IN: "in", Role.LAYER_OUT: "out", Role.PARAMS: "params"}
_NOT_SCORED = "not scored"
_RULE = "------------------------------"
_NAMES = 3  # layers of a type that are named in the summary; JSON has all
_TENFOLD = 1000.0  # percent; a loss that has risen further says nothing in percent of a tiny baseline


def summary_lines(job: Job, outcome: Outcome) -> list[str]:
    """The summary in the original's words, a line each."""
    mode, result = outcome.mode, outcome.result
    margin = outcome.margin
    lines = [_RULE, *mode.heading(_NOT_SCORED if margin is None else number(margin.baseline))]
    is_loss = margin is not None and margin.goal is Goal.MIN
    for group in result.groups:
        lines += group.group.title
        if group.skipped:
            lines.append("none: the net has no such layers")
        if group.given:
            lines.append(f"{group.bits}bit: \tgiven")
        lines += [f"{trial.bits}bit: \t{number(trial.score)}{'*' if trial.stopped else ''}" for trial in group.trials]
    chosen = [(group.bits, group.group.part) for group in result.groups if not group.skipped]
    if len(result.groups) > 1:
        lines.append(mode.combined_title)
        ends = [","] * (len(chosen) - 1) + [":"]
        lines += [f"{bits}bit {part}{end}" for (bits, part), end in zip(chosen, ends, strict=True)]
        if result.combined is not None:
            lines.append(f"{'Score' if is_loss else 'Accuracy'}: {number(result.combined.score)}")
        elif margin is None:
            lines.append(f"Accuracy: {_NOT_SCORED}")
    elif result.combined is not None and result.combined not in result.groups[0].trials:
        lines.append(f"{result.groups[0].bits}bit: \t{number(result.combined.score)}")
    return [*lines, "Please fine-tune."]


def notes(job: Job, outcome: Outcome) -> list[str]:
    """What the original's summary does not say: the judged output and the margin, other outputs, what was left float,
    the file, a line each."""
    lines = []
    if any(trial.stopped for group in outcome.result.groups for trial in group.trials):
        lines.append("* stopped early: the batches left could not have changed whether it passes")
    combined, margin = outcome.result.combined, outcome.margin
    if combined is not None and margin is not None:
        lines.append(f"Judged by {outcome.score_blob}: {margin.goal.better} is better.")
        if not job.legacy:  # DIFFERS(D9)
            lines.append(_verdict(str(outcome.score_blob), margin, combined))
    others = _other_outputs(outcome)
    if others:
        lines.append("Other outputs (float net, quantized net):")
        lines += [f"{blob}: {number(before)}, {number(after)}" for blob, (before, after) in others.items()]
    return [*lines, *_left_float(outcome.left_float), f"Written to {job.model_quantized}"]


def as_json(job: Job, outcome: Outcome) -> dict[str, Any]:
    """Everything in the summary, the ranges and integer lengths, and the scores of each trial."""
    result = outcome.result
    return {
        "model": job.model,
        "weights": job.weights,
        "model_quantized": job.model_quantized,
        "trimming_mode": job.trimming_mode,
        "legacy": job.legacy,
        "fl_params": job.fl_params.value,
        "calibration_iterations": job.calibration_iterations,
        **_scoring(job, outcome),
        "layers": {each.layer.name: _layer(each, outcome) for each in outcome.layers},
        "groups": [
            {
                "name": group.group.name,
                "part": group.group.part,
                "skipped": group.skipped,
                "given": group.given,
                "bits": None if group.skipped else group.bits,
                "trials": [_trial(trial) for trial in group.trials],
            }
            for group in result.groups
        ],
        "combined": None if result.combined is None else _combined(outcome, result.combined),
        "other_outputs": {
            blob: {"float": before, "combined": after} for blob, (before, after) in _other_outputs(outcome).items()
        },
        "left_float": [asdict(layer) for layer in outcome.left_float],
        "summary": [*summary_lines(job, outcome), *notes(job, outcome)],
    }


def _combined(outcome: Outcome, combined: Trial) -> dict[str, Any]:
    bits = {group.group.name: group.bits for group in outcome.result.groups if not group.skipped}
    worse_by = None if outcome.margin is None else outcome.margin.missed_by(combined.score)
    return {**_trial(combined), "bits": bits, "worse_by": worse_by}


def _verdict(blob: str, margin: Margin, combined: Trial) -> str:
    """Whether the margin is kept, and by how much the score differs from the baseline."""
    verdict = "kept" if combined.passed else "missed"
    return f"The error margin is {verdict}: {blob} is {_distance(margin, combined.score)}"


def _distance(margin: Margin, score: float) -> str:
    """How far a score is from the baseline, in the margin's unit where that says something."""
    if not (math.isfinite(score) and math.isfinite(margin.baseline)):
        return "not a finite number."
    worse = margin.missed_by(score)
    allowed = number(margin.percent)
    percent_of_loss = margin.goal is Goal.MIN
    side = "above" if score > margin.baseline else "below"
    if percent_of_loss and abs(worse) >= _TENFOLD:
        return (
            f"{number(abs(score - margin.baseline))} {side} the baseline, {number(margin.baseline)}; "
            f"the margin is {allowed} % of the baseline."
        )
    unit = " %" if percent_of_loss else ""
    if score == margin.baseline:
        return f"equal to the baseline; the margin is {allowed}{unit}."
    far = _short(abs(worse), margin.percent)
    of_what = " %" if percent_of_loss else f" percentage point{'s' * (far != '1')}"
    return f"{far}{of_what} {side} the baseline; the margin is {allowed}{unit}."


def _short(value: float, margin: float) -> str:
    """A positive value with one decimal; with more where it would seem to be 0 or on the margin's other side."""
    for decimals in range(1, 6):
        rounded = round(value, decimals)
        if rounded > 0 and (rounded > margin) == (value > margin):
            return number(rounded)
    return number(value)


def _other_outputs(outcome: Outcome) -> dict[str, tuple[float, float]]:
    """The outputs of one number that did not judge, of the float net and of the combined one, by name."""
    combined, baseline = outcome.result.combined, outcome.baseline_scores
    if combined is None or baseline is None:
        return {}
    found = {output.blob: output.score for output in combined.scores.outputs}
    return {
        output.blob: (output.score, found[output.blob])
        for output in baseline.outputs
        if output.blob != outcome.score_blob and output.means.size == 1 and output.blob in found
    }


def _left_float(layers: Sequence[LeftFloat]) -> list[str]:
    """The layers that were left float, the types with most parameters first."""
    by_type: dict[str, list[LeftFloat]] = {}
    for layer in layers:
        by_type.setdefault(layer.type, []).append(layer)
    shares = {layer_type: sum(layer.share for layer in found) for layer_type, found in by_type.items()}
    lines = []
    for layer_type in sorted(by_type, key=lambda each: -shares[each]):
        names = [layer.name for layer in by_type[layer_type]]
        more = len(names) - _NAMES
        named = ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"{named} ({layer_type}): {_percent(shares[layer_type])} of the parameters")
    return ["Left float:", *lines] if lines else []


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _scoring(job: Job, outcome: Outcome) -> dict[str, Any]:
    """How nets were scored, and the float net's scores; null where nothing was scored."""
    margin, baseline = outcome.margin, outcome.baseline_scores
    if margin is None or baseline is None:
        keys = ("iterations", "error_margin", "score", "score_goal", "ap_version", "baseline")
        return dict.fromkeys(keys)
    return {
        "iterations": job.iterations,
        "error_margin": job.error_margin_percent,
        "score": outcome.score_blob,
        "score_goal": margin.goal.value,
        "ap_version": job.how.ap_version.value,
        "baseline": {"score": margin.baseline, **scores_as_json(baseline)},
    }


def _layer(each: Trimmable, outcome: Outcome) -> dict[str, Any]:
    lengths = outcome.mode.integer_lengths(each.ranges)
    written = next(layer for layer in outcome.net_file.message.layer if layer.name == each.layer.name)
    return {
        "family": each.family,
        "max_in": each.ranges.layer_in,
        "max_out": each.ranges.layer_out,
        "max_params": each.ranges.params,
        **{f"il_{_SHORT[role]}": bits for role, bits in lengths.items()},
        "quantization_param": {
            field.name: enum_name(written.quantization_param, field.name) if field.enum_type else value
            for field, value in written.quantization_param.ListFields()
        },
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "bits": trial.bits,
        "score": trial.score,
        "passed": trial.passed,
        "iterations": trial.scores.iterations,
        **scores_as_json(trial.scores),
    }
