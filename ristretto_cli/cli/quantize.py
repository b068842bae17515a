"""Trim a trained net to few bits and write its prototxt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ristretto_cli.cli.flags import (
    Percent,
    RegistryOption,
    ap_version_option,
    check_outputs,
    gpu_option,
    graph_option,
    integers,
    json_file,
    json_option,
    net_options,
    print_result,
    threads_option,
    usable_gpu,
    widths,
    write_json,
)
from ristretto_cli.cli.gflags import GflagsCommand, given_flags, option
from ristretto_cli.cli.progress import progress
from ristretto_cli.cli.rules import Excludes

if TYPE_CHECKING:
    from ristretto_cli.layers.host_layer import Judging
    from ristretto_cli.scoring.execution import GraphKind

# Flags that only concern the scores of nets; --cache_mb is a limit, which also holds where nothing is kept.
_FOR_SCORES = ("iterations", "error_margin", "score", "score_goal", "ap_version", "bit_widths", "early_stop")

if TYPE_CHECKING:
    from ristretto_cli.backends.gpu import GpuRequest


@click.command(
    cls=GflagsCommand,
    rules=[
        Excludes("--json", "--dry_run"),
        *(Excludes(f"--{name}", "--noscore") for name in _FOR_SCORES),
    ],
)
@net_options
@option("--model_quantized", "The net to write. Default: quantized.prototxt beside the model.", unit="file")
@option(
    "--trimming_mode",
    "The number format, and how its widths are searched.",
    unit="mode",
    required=True,
    cls=RegistryOption,
    registry="ristretto_cli.formats.number_format:MODES",
)
@option("--iterations", "Batches to score each net with.", type=click.IntRange(min=1), default=50)
@option(
    "--error_margin",
    "How much worse than the float net's the score may be: percent points; of a loss, percent of it.",
    unit="percent",
    type=Percent(),
    default=2.0,
)
@gpu_option
@threads_option
@graph_option
@option(
    "--score",
    "The output to score by. Default: that of an Accuracy layer, else of a DetectionEvaluate layer, else a loss; of "
    "several, the one at the end of the longest path through the net.",
    unit="blob",
)
@option(
    "--score_goal",
    "Whether a higher or a lower score is better. Default: min for a loss, else max.",
    type=click.Choice(["max", "min"]),
)
@ap_version_option
@option(
    "--calibration_iterations",
    "Batches to read ranges from.",
    type=click.IntRange(min=1),
    default=10,
)
@option("--bit_widths", "The widths to try.", unit="bits,bits...", default="16,8,4,2,1", callback=integers)
@option(
    "--bw",
    "Widths that are given and not searched, such as conv_params=4,fc_params=4,layer=8; minifloat: net=8.",
    unit="part=bits,...",
    default="",
    callback=widths,
)
@option("--noscore", "Score no net: measure ranges and write the net. --bw must give all widths.", is_flag=True)
@option(
    "--fl_params",
    "How the fractional length of weights is chosen: so that the largest one fits, or their squared error is least.",
    type=click.Choice(["max", "mse"]),
    default="max",
)
@option("--early_stop", "End a trial as soon as its batches decide whether it passes.", is_flag=True)
@option(
    "--cache_mb",
    "Memory for data that several nets need, in MB; what exceeds it goes to a temporary file. 0: none is kept.",
    type=click.IntRange(0, 1 << 30),
    default=512,
)
@option("--allow_missing_weights", "Fill layers that have no weights by the net's fillers.", is_flag=True)
@option("--legacy", "Do as the original does, step by step, flaws included.", is_flag=True)
@json_option("everything that was found")
@option("--dry_run", "Only list the nets that would be scored.", is_flag=True)
def command(
    model_quantized: str | None,
    error_margin: float,
    score_goal: str | None,
    json: str | None,
    dry_run: bool,
    fl_params: str,
    gpu: GpuRequest,
    threads: int,
    graph: GraphKind,
    ap_version: Judging,
    **flags: Any,
) -> None:
    """Trim a trained net to few bits and write its prototxt.

    Prints the widths that were tried with their scores; then which output judged and whether the error margin is kept,
    how other outputs fare, which layers stay float, and the file that was written.
    """
    given = given_flags(click.get_current_context())
    _check(given, flags["trimming_mode"], flags["bw"], fl_params, legacy=flags["legacy"])
    from ristretto_cli.quantize.job import FlParams, Job, MissingWidths, planned_nets, quantize
    from ristretto_cli.quantize.report import as_json, notes, summary_lines
    from ristretto_cli.quantize.search import Goal
    from ristretto_cli.quantize.written import quantized_text
    from ristretto_cli.scoring.execution import Execution
    from ristretto_cli.wire.files import write_atomically

    target = model_quantized or str(Path(flags["model"]).parent / "quantized.prototxt")
    goal = None if score_goal is None else Goal(score_goal)
    job = Job(
        model_quantized=target,
        error_margin_percent=error_margin,
        score_goal=goal,
        fl_params=FlParams(fl_params),
        how=ap_version,
        **flags,
    )
    check_outputs([target, json_file(json)], [job.model, job.weights])
    try:
        if dry_run:
            click.echo("\n".join(planned_nets(job)))
            return
        job = replace(job, execution=Execution(usable_gpu(gpu), threads, graph))
        with progress("quantize") as bar:
            outcome = quantize(job, on_batch=bar.on_batch)
    except MissingWidths as fault:
        raise click.UsageError(str(fault), click.get_current_context()) from fault
    write_atomically(target, quantized_text(job, outcome))
    if json is not None:
        write_json(json, as_json(job, outcome))
    summary, ours = summary_lines(job, outcome), notes(job, outcome)
    # The original's log ends with its summary.
    print_result([*summary, *ours], logged=[*ours, *summary], json=json)


def _check(given: Collection[str], trimming_mode: str, bw: Mapping[str, int], fl_params: str, *, legacy: bool) -> None:
    """UsageError where flags do not go together. given: those on the command line."""
    from ristretto_cli.formats.number_format import MODES

    mode = MODES.get(trimming_mode)
    names = [group.name for group in mode.groups]
    unknown = [name for name in bw if name not in names]
    if unknown:
        raise click.UsageError(f'--bw: {trimming_mode} has no part "{unknown[0]}"; its parts: {", ".join(names)}')
    idle = f"has no effect with --trimming_mode={trimming_mode}"
    faults = []
    if "--fl_params" in given and "conv_params" not in names:
        faults.append(f"--fl_params {idle}, only with dynamic_fixed_point")
    if fl_params != "max" and legacy:
        faults.append(f"--fl_params={fl_params} has no effect with --legacy")
    if "--bit_widths" in given and mode.widths((), []):
        faults.append(f"--bit_widths {idle}, which has widths of its own")
    elif "--bit_widths" in given and len(bw) == len(names):
        faults.append("--bit_widths has no effect with --bw, which gives all widths")
    if "--early_stop" in given and len(names) == 1:
        faults.append(f"--early_stop {idle}, whose nets are all scored in full")
    elif "--early_stop" in given and len(bw) == len(names):
        faults.append("--early_stop has no effect with --bw, which gives all widths")
    if faults:
        raise click.UsageError("\n".join(faults))
