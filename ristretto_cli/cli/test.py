"""Score a net, quantized or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ristretto_cli.cli.flags import (
    ap_version_option,
    check_outputs,
    gpu_option,
    graph_option,
    json_file,
    json_option,
    print_result,
    state_options,
    threads_option,
    usable_gpu,
    write_json,
)
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.progress import progress

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest
    from ristretto_cli.layers.host_layer import MetricOptions

_QUANTIZED = "quantized.prototxt"


@click.command(cls=GflagsCommand)
@option("--model", f"The net's definition, a prototxt. Default: {_QUANTIZED} in the current folder.", unit="file")
@option("--weights", "The weights. Default: the file named in the model's header.", unit="file")
@option("--iterations", "Number of batches to run.", type=click.IntRange(min=1), default=50)
@state_options
@ap_version_option
@gpu_option
@threads_option
@graph_option
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
@json_option("the scores")
def command(
    model: str | None,
    weights: str | None,
    iterations: int,
    level: int,
    stage: tuple[str, ...],
    ap_version: MetricOptions,
    gpu: GpuRequest,
    threads: int,
    graph: tuple[str, ...] | None,
    allow_missing_weights: bool,
    json: str | None,
) -> None:
    """Score a net, quantized or not."""
    from ristretto_cli.net.build import NetState
    from ristretto_cli.quantize.header import weights_of
    from ristretto_cli.scoring.execution import Execution
    from ristretto_cli.scoring.net_files import score_file
    from ristretto_cli.scoring.scores import score_lines, scores_as_json

    if model is None and not Path(_QUANTIZED).exists():
        raise click.UsageError(f"missing: --model (and no {_QUANTIZED} in the current folder)")
    model = _QUANTIZED if model is None else model
    if weights is None:
        weights = weights_of(model)
        click.echo(f"Scoring {model} with {weights}, named in its header.", err=True)
    check_outputs([json_file(json)], [model, weights])
    device = usable_gpu(gpu)
    with progress("test") as bar:
        scores = score_file(
            model,
            weights,
            iterations,
            state=NetState(level=level, stages=stage),
            execution=Execution(device, threads, graph),
            allow_missing=allow_missing_weights,
            metric_options=ap_version,
            on_batch=bar.on_batch,
        )
    if json is not None:
        found = {
            "model": model,
            "weights": weights,
            "ap_version": ap_version.ap_version.value,
            **scores_as_json(scores),
        }
        write_json(json, found)
    print_result(score_lines(scores), in_log=True, json=json)
