"""What a search tells: the summary's lines, and all of it as JSON."""

from __future__ import annotations

from typing import Any

from ristretto_cli.formats.number_format import Role
from ristretto_cli.quantize.job import Job, Outcome
from ristretto_cli.quantize.plan import Trimmable
from ristretto_cli.quantize.search import Goal, Trial
from ristretto_cli.scoring.score import number, scores_as_json
from ristretto_cli.wire.messages import enum_name

_SHORT = {Role.LAYER_IN: "in", Role.LAYER_OUT: "out", Role.PARAMS: "params"}
_RULE = "------------------------------"


def summary_lines(job: Job, outcome: Outcome) -> list[str]:
    """The summary in the original's words, a line each; lines of our own only where the original errs."""
    mode, result = outcome.mode, outcome.result
    lines = [_RULE, *mode.heading(number(outcome.baseline))]
    is_loss = outcome.margin.goal is Goal.MIN
    if is_loss:
        lines.append(f"The score is {outcome.score_blob}: lower is better.")
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
    elif result.combined is not None and result.combined not in result.groups[0].trials:
        lines.append(f"{result.groups[0].bits}bit: \t{number(result.combined.score)}")
    if not job.legacy and result.combined is not None and not result.combined.passed:  # DIFFERS(D9)
        missed = number(outcome.margin.missed_by(result.combined.score))
        side = "above" if is_loss else "below"
        lines.append(
            f"This misses the error margin of {number(job.error_margin_percent)} %: "
            f"it is {missed} % {side} the baseline."
        )
    if any(trial.stopped for group in result.groups for trial in group.trials):
        lines.append("* stopped early: the batches left could not have changed whether it passes")
    return [*lines, "Please fine-tune."]


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
        "iterations": job.iterations,
        "calibration_iterations": job.calibration_iterations,
        "error_margin": job.error_margin_percent,
        "score": outcome.score_blob,
        "score_goal": outcome.margin.goal.value,
        "ap_version": job.how.ap_version.value,
        "baseline": {"score": outcome.baseline, **scores_as_json(outcome.baseline_scores)},
        "layers": {each.layer.name: _layer(each, outcome) for each in outcome.layers},
        "groups": [
            {
                "part": group.group.part,
                "skipped": group.skipped,
                "given": group.given,
                "bits": None if group.skipped else group.bits,
                "trials": [_trial(trial) for trial in group.trials],
            }
            for group in result.groups
        ],
        "combined": None if result.combined is None else _trial(result.combined),
        "summary": summary_lines(job, outcome),
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
