"""Train a net, or fine-tune a quantized one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from ristretto_cli.cli.flag_rules import Excludes
from ristretto_cli.cli.flags import (
    STDOUT,
    ap_version_option,
    check_outputs,
    gpu_option,
    json_file,
    json_option,
    report_option,
    state_options,
    threads_option,
    write_json,
)
from ristretto_cli.cli.gflags import GflagsCommand, command_line, given_flags, option
from ristretto_cli.cli.progress import progress

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest
    from ristretto_cli.layers.host_layer import MetricOptions

_BOTH = "give --snapshot to resume training or --weights to finetune, but not both"
_EFFECT = click.Choice(["stop", "snapshot", "none"])


_EXAMPLES = """\b
Examples:
  ristretto train --solver solver.prototxt
  ristretto train --solver solver_finetune.prototxt --weights x.caffemodel"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES, rules=[Excludes("--weights", "--snapshot", _BOTH)])
@option("--solver", "The solver's definition, a prototxt.", unit="file", required=True)
@option("--weights", "Initial weights, files separated by commas.", unit="files")
@option("--snapshot", "A .solverstate to resume from.", unit="file")
@gpu_option
@state_options
@ap_version_option
@option("--sigint_effect", "Action on ^C (SIGINT).", type=_EFFECT, default="stop")
@option("--sighup_effect", "Action on SIGHUP.", type=_EFFECT, default="snapshot")
@option("--sigterm_effect", "Action on SIGTERM, which otherwise ends the training at once.", type=_EFFECT)
@threads_option
@option("--trim_activations", "Also quantize activations during training.", is_flag=True)
@option(
    "--round_to_nearest", "Round quantized weights to nearest during training, instead of stochastically.", is_flag=True
)
@option(
    "--update",
    "The weights that updates are added to: full-precision shadow weights, or the quantized ones, for comparison.",
    type=click.Choice(["shadow", "quantized"]),
    default="shadow",
)
@option("--trimmed_weights", "Also write the quantized weights with each snapshot.", is_flag=True)
@option(
    "--rename_weights",
    "At the end, name the trained weights in the header of the quantized net, so that test scores them.",
    is_flag=True,
)
@json_option("the final figures")
@report_option
def command(
    solver: str,
    weights: str | None,
    snapshot: str | None,
    gpu: GpuRequest,
    level: int,
    stage: tuple[str, ...],
    ap_version: MetricOptions,
    sigint_effect: str,
    sighup_effect: str,
    sigterm_effect: str | None,
    threads: int,
    trim_activations: bool,
    round_to_nearest: bool,
    update: str,
    trimmed_weights: bool,
    rename_weights: bool,
    json: str | None,
    report: str | None,
) -> None:
    """Train a net, or fine-tune a quantized one.

    The first ^C has the effect set by --sigint_effect; a second one ends the run at once.
    """
    check_outputs([json_file(json), report], [solver, snapshot, *(weights or "").split(",")])
    context = click.get_current_context()
    given = given_flags(context)
    if report is not None:
        from ristretto_cli.reports.report import require_libraries

        require_libraries()
    from ristretto_cli.train.curves import running_log
    from ristretto_cli.train.run import TrainConfig, run
    from ristretto_cli.train.signals import Request

    config = TrainConfig(
        solver,
        weights=weights or None,
        snapshot=snapshot or None,
        gpu=gpu,
        level=level if "--level" in given else None,
        stages=stage,
        sigint=Request(sigint_effect),
        sighup=Request(sighup_effect),
        sigterm=None if sigterm_effect is None else Request(sigterm_effect),
        threads=threads,
        trim_activations=trim_activations,
        round_to_nearest=round_to_nearest,
        update_quantized=update == "quantized",
        trimmed_weights=trimmed_weights,
        rename_weights=rename_weights,
        metric_options=ap_version,
    )
    with progress("train") as bar, running_log() if report is not None else nullcontext() as log:
        result = run(config, lambda done, total: bar.on_batch(done, total, "iterations"))
    if json is not None:
        write_json(json, result.as_json(solver))
    if report is not None and log is not None:
        from ristretto_cli.reports.report import write_report
        from ristretto_cli.reports.training import training_report

        write_report(report, training_report(config, result, log.curves(solver), command=command_line(context)))
    if json != STDOUT:
        click.echo("\n".join(result.lines()))
