"""The analysis of a trimmed net as a table, as sentences about what stands out, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import NumberFormat, Role
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.quantize.analyze import Damage, NetAnalysis, PartAnalysis

_BAR = "·▁▂▃▄▅▆▇█"
_BAR_WIDTH = 16
_BAR_FITS = 120  # columns of the terminal
_CLIPPED = 0.001  # the share of values from which saturation is worth a sentence
_ZEROED = 0.5  # the share of nonzero values from which underflow is
_GAIN = 6.0  # dB, from which another position of the binary point is
_COSTLY = 0.1  # of the divergence of all parts
_MOST = 5  # sentences
_LEAST_SHARE = 1e-5  # that is shown as a number
_COLUMNS = (
    "layer",
    "role",
    "format",
    "low",
    "high",
    "format_low",
    "format_high",
    "clipped",
    "zeroed",
    "sqnr",
    "output_sqnr",
    "divergence",
    "agreement",
    "score",
    "score_change",
    "batches",
    "bits_needed",
)


def analysis_lines(analysis: NetAnalysis, *, columns: int = 80) -> list[str]:
    """The table, the layers and what stands out. columns: the width of the terminal; histograms need a wide one."""
    with_bars = columns >= _BAR_FITS
    rows = [["part", "format", "range", "clipped", "zeroed", "SQNR", "divergence", "score", "bits"]]
    rows[0] += ["histogram"] if with_bars else []
    for part in analysis.parts:
        error = part.error
        rows.append(
            [
                f"{part.layer} {part.role.value}",
                format_text(part.number_format),
                f"{error.low:.4g} to {error.high:.4g}",
                _percent(error.clipped),
                _percent(error.zeroed),
                _decibels(error.sqnr),
                f"{part.damage.divergence:.3g}",
                _change(part.damage),
                "-" if error.bits_needed is None else str(error.bits_needed),
                *([_bar(error.histogram.counts)] if with_bars else []),
            ]
        )
    lines = [*_head(analysis), "", *_table(rows, right={3, 4, 5, 6, 7, 8}), ""]
    without = any(layer.without is not None for layer in analysis.layers)
    rows = [["layer", "SQNR of its output", "alone: divergence", "score"]]
    rows[0] += ["float: divergence", "score"] if without else []
    for layer in analysis.layers:
        cells = [layer.layer, _decibels(layer.output_sqnr), f"{layer.alone.divergence:.3g}", _change(layer.alone)]
        if layer.without is not None:
            cells += [f"{layer.without.divergence:.3g}", _change(layer.without)]
        rows.append(cells)
    return [*lines, *_table(rows, right={1, 2, 3, 4, 5}), "", *findings(analysis)]


def _head(analysis: NetAnalysis) -> list[str]:
    kind = "Kullback-Leibler divergence" if analysis.is_classes else "relative squared error"
    whole = f"{kind} of {', '.join(analysis.predictions)} from the float net: {analysis.trimmed.divergence:.4g}"
    batches = f"{analysis.iterations} batch{'' if analysis.iterations == 1 else 'es'}"
    lines = [f"{analysis.model}, {batches}.", f"{whole[0].upper()}{whole[1:]}."]
    if analysis.trimmed.agreement is not None:
        lines.append(f"Agreement of classes: {analysis.trimmed.agreement:.6g}.")
    if analysis.score is not None:
        lines.append(f"{analysis.score}: {analysis.trimmed.score:.6g} trimmed, {analysis.float_net.score:.6g} float.")
    few = sum(part.damage.batches < analysis.iterations for part in analysis.parts)
    if few:
        lines.append(f"{few} parts of little effect were measured on the first batches only.")
    lines.append(
        "divergence, score: with only this part trimmed, the score as the change from the float net. "
        f"bits: for {analysis.target_sqnr:g} dB."
    )
    return lines


def findings(analysis: NetAnalysis) -> list[str]:
    """Sentences about the parts that stand out, each with a remedy."""
    total = sum(part.damage.divergence for part in analysis.parts if math.isfinite(part.damage.divergence))
    has_widths = not any(isinstance(part.number_format, PowerOfTwo) for part in analysis.parts)
    found: list[str] = []
    for part in analysis.parts:
        is_costly = part.damage.divergence >= _COSTLY * total > 0
        is_clipped_input = part.reads_data and part.error.clipped >= _CLIPPED
        if (is_costly or is_clipped_input) and (is_clipped_input or len(found) < _MOST):
            found.append(_finding(part, analysis.target_sqnr, has_widths=has_widths))
    if not found:
        return ["What stands out: nothing; no part changes the net's predictions."]
    return ["What stands out:", *(f"- {each}" for each in found)]


def _finding(part: PartAnalysis, target: float, *, has_widths: bool) -> str:
    """What is wrong with a part, and how to trim it otherwise. has_widths: whether the trimming mode has a choice of
    widths and of rules for fractional lengths."""
    error, number_format = part.error, part.number_format
    name, what = f"{part.layer} {part.role.value}", format_text(number_format)
    better = error.best if error.best_sqnr >= error.sqnr + _GAIN and error.best != number_format else None
    wider = max(number_format.width() + 1, error.bits_needed or 0)
    if error.clipped >= _CLIPPED:
        reaches = f"from {error.low:.4g} to {error.high:.4g}"
        ends = f"{error.format_low:.4g} to {error.format_high:.4g}"
        text = f"{name}: {_percent(error.clipped)} of the values are clipped. They are {reaches}; {what} has {ends}."
        remedy = _remedy_for_clipping(part, wider) if has_widths else ""
    elif error.zeroed >= _ZEROED:
        text = f"{name}: {_percent(error.zeroed)} of the nonzero values become 0 in {what}."
        remedy = "" if better is not None or not has_widths else f"More bits would help: {_wider(part, wider)}."
    else:
        text = (
            f"{name}: {what} gives {_decibels(error.sqnr)} dB, and costs a divergence of {part.damage.divergence:.3g}."
        )
        remedy = "" if better is not None or not has_widths else f"More bits would help: {_wider(part, wider)}."
    if remedy.startswith("More") and error.bits_needed is not None and error.bits_needed > number_format.width():
        remedy = f"{target:g} dB need {error.bits_needed} bits: {_wider(part, wider)}."
    if better is not None:
        gives = "an exact result" if error.best_sqnr == math.inf else f"{error.best_sqnr:.1f} dB"
        better_text = f"With the same width, {format_text(better)} gives {gives}."
        remedy = f"{remedy} {better_text}" if remedy else better_text
    return f"{text} {remedy}".rstrip()


def _remedy_for_clipping(part: PartAnalysis, wider: int) -> str:
    if not isinstance(part.number_format, Fixed):
        return f"More bits would help: {_wider(part, wider)}."
    if part.role is Role.PARAMS:
        return "Trim with --fl_params max, or biases in a format of their own with --bw bias=16."
    if part.role is Role.BIAS:
        return "Give biases a format of their own: --bw bias=16."
    if part.error.low >= 0 and part.number_format.signed:
        return "They are never negative: trim with --unsigned, or with --fl_layer range."
    return "Trim with --fl_layer range."


def _wider(part: PartAnalysis, bits: int) -> str:
    if not isinstance(part.number_format, Fixed):
        return "trim with a larger --bw"
    if part.role is Role.BIAS:
        return f"--bw bias={max(bits, 16)}"
    return f"--bw {part.layer}.{part.role.value}={bits}"


def comparison_lines(analysis: NetAnalysis, other: NetAnalysis) -> list[str]:
    """The parts of two trimmed nets side by side, those with the largest difference in divergence first."""
    ours = {(part.layer, part.role): part for part in analysis.parts}
    theirs = {(part.layer, part.role): part for part in other.parts}

    def difference(key: tuple[str, Role]) -> float:
        pair = [found[key].damage.divergence if key in found else 0.0 for found in (ours, theirs)]
        return abs(pair[0] - pair[1])

    rows = [["part", "format", "SQNR", "divergence", "format of the other", "SQNR", "divergence"]]
    for key in sorted(dict.fromkeys([*ours, *theirs]), key=difference, reverse=True):
        cells = [f"{key[0]} {key[1].value}"]
        for found in (ours, theirs):
            part = found.get(key)
            cells += (
                ["float", "-", "-"]
                if part is None
                else [
                    format_text(part.number_format),
                    _decibels(part.error.sqnr),
                    f"{part.damage.divergence:.3g}",
                ]
            )
        rows.append(cells)
    heads = [
        f"{each.model}: divergence {each.trimmed.divergence:.4g}"
        + ("" if each.trimmed.score is None else f", {each.score} {each.trimmed.score:.6g}")
        for each in (analysis, other)
    ]
    return [*heads, "Each net is compared with its own float net.", "", *_table(rows, right={2, 3, 5, 6})]


def analysis_as_json(analysis: NetAnalysis) -> dict[str, Any]:
    """The analysis for JSON; parts in the order of the table. Infinite ratios become null."""
    return {
        "model": analysis.model,
        "weights": analysis.weights,
        "iterations": analysis.iterations,
        "target_sqnr": analysis.target_sqnr,
        "predictions": list(analysis.predictions),
        "divergence_is": "kullback_leibler" if analysis.is_classes else "relative_squared_error",
        "score": analysis.score,
        "float": _damage(analysis.float_net),
        "trimmed": _damage(analysis.trimmed),
        "parts": [
            {
                "layer": part.layer,
                "role": part.role.value,
                "format": format_as_json(part.number_format),
                "range": [part.error.low, part.error.high],
                "format_range": [part.error.format_low, part.error.format_high],
                "clipped": part.error.clipped,
                "zeroed": part.error.zeroed,
                "sqnr": part.error.sqnr,
                "bits_needed": part.error.bits_needed,
                "best_format": None if part.error.best is None else format_as_json(part.error.best),
                "best_sqnr": part.error.best_sqnr,
                "only_this_part": _damage(part.damage),
                "histogram": {
                    "low": part.error.histogram.low,
                    "high": part.error.histogram.high,
                    "counts": list(part.error.histogram.counts),
                },
            }
            for part in analysis.parts
        ],
        "layers": [
            {
                "layer": layer.layer,
                "output_sqnr": layer.output_sqnr,
                "only_this_layer": _damage(layer.alone),
                **({} if layer.without is None else {"all_but_this_layer": _damage(layer.without)}),
            }
            for layer in analysis.layers
        ],
        "findings": [line.removeprefix("- ") for line in findings(analysis)[1:]],
    }


def analysis_as_csv(analysis: NetAnalysis) -> str:
    """The parts for a spreadsheet, in the order of the table."""
    outputs = {layer.layer: layer.output_sqnr for layer in analysis.layers}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for part in analysis.parts:
        error, damage = part.error, part.damage
        numbers = [error.low, error.high, error.format_low, error.format_high, error.clipped, error.zeroed, error.sqnr]
        numbers += [outputs[part.layer], damage.divergence]
        rest = [damage.agreement, damage.score, damage.score_change, damage.batches, error.bits_needed]
        cells = ["" if value is None else f"{value:.9g}" for value in [*numbers, *rest]]
        writer.writerow([part.layer, part.role.value, format_text(part.number_format), *cells])
    return stream.getvalue()


def format_text(number_format: NumberFormat) -> str:
    """A number format in a few words."""
    if isinstance(number_format, Fixed):
        return f"{number_format.bits} bits, fl {number_format.frac_bits}{'' if number_format.signed else ', unsigned'}"
    if isinstance(number_format, Minifloat):
        return f"{number_format.width()} bits, exponent {number_format.exp_bits}"
    return f"{number_format.width()} bits"


def format_as_json(number_format: NumberFormat) -> dict[str, Any]:
    """A number format for JSON: its bits, and what else it has."""
    found: dict[str, Any] = {"bits": number_format.width()}
    if isinstance(number_format, Fixed):
        found |= {"fl": number_format.frac_bits, "unsigned": not number_format.signed}
    if isinstance(number_format, Minifloat):
        found |= {"exp_bits": number_format.exp_bits, "mant_bits": number_format.mant_bits}
    return found


def _damage(damage: Damage) -> dict[str, Any]:
    return {
        "divergence": damage.divergence,
        "agreement": damage.agreement,
        "score": damage.score,
        "score_change": damage.score_change,
        "batches": damage.batches,
    }


def _table(rows: Sequence[Sequence[str]], *, right: set[int]) -> list[str]:
    """Rows with aligned columns; those in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _percent(share: float) -> str:
    if 0 < share < _LEAST_SHARE:
        return f"<{100 * _LEAST_SHARE:g} %"
    return f"{100 * share:.{2 if share < 0.995 else 3}g} %"


def _decibels(ratio: float) -> str:
    return "exact" if ratio == math.inf else f"{ratio:.1f}"


def _change(damage: Damage) -> str:
    return "-" if damage.score_change is None else f"{damage.score_change:+.4f}"


def _bar(counts: Sequence[int]) -> str:
    """A histogram in few characters; heights are on a logarithmic scale, so that tails can be seen."""
    step = -(-len(counts) // _BAR_WIDTH)
    sums = [sum(counts[i : i + step]) for i in range(0, len(counts), step)]
    most = math.log1p(max(sums, default=0))
    return "".join(_BAR[0 if not n else 1 + round((len(_BAR) - 2) * math.log1p(n) / most)] for n in sums)
