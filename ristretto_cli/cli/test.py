"""Score a net, quantized or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ristretto_cli.cli.data_flags import DATA_RULES, data_options, user_data
from ristretto_cli.cli.flag_rules import Needs
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
from ristretto_cli.cli.integer_flags import ARITHMETIC_RULES, arithmetic_options, integer_compiler
from ristretto_cli.cli.net_flags import other_input_shape_option
from ristretto_cli.cli.progress import progress

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest
    from ristretto_cli.layers.host_layer import MetricOptions

_QUANTIZED = "quantized.prototxt"


_EXAMPLES = """\b
Examples:
  ristretto test --model quantized.prototxt --weights x.caffemodel --iterations 100
  ristretto test --against train_val.prototxt"""


@click.command(
    cls=GflagsCommand,
    epilog=_EXAMPLES,
    rules=[Needs("--score", "--against"), Needs("--against_weights", "--against"), *DATA_RULES, *ARITHMETIC_RULES],
)
@option("--model", f"The net's definition, a prototxt. Default: {_QUANTIZED} in the current folder.", unit="file")
@option(
    "--weights",
    "The weights, files separated by commas. Default: the file named in the model's header.",
    unit="files",
)
@option("--iterations", "Number of batches to run.", type=click.IntRange(min=1), default=50)
@option(
    "--against",
    "Compare with this net, normally the float net, on the same data: agreement of classes, and signal to noise ratio.",
    unit="file",
)
@option(
    "--against_weights",
    "The weights of that net. Default: the file named in its header, else those of --weights.",
    unit="file",
)
@option(
    "--score",
    "The comparison: agreement, sqnr, or one of them for another blob, agreement:BLOB, sqnr:BLOB. Default: all.",
    unit="score",
)
@data_options
@arithmetic_options
@other_input_shape_option
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
    against: str | None,
    against_weights: str | None,
    score: str | None,
    arithmetic: str,
    rounding: str,
    affine_bits: int,
    input_shape: dict[str, tuple[int, ...]],
    level: int,
    stage: tuple[str, ...],
    ap_version: MetricOptions,
    gpu: GpuRequest,
    threads: int,
    graph: tuple[str, ...] | None,
    allow_missing_weights: bool,
    json: str | None,
    **data_flags: Any,
) -> None:
    """Score a net, quantized or not.

    Prints the mean of each output; with --against, the share of images that both nets give the same class, and the
    signal to noise ratio of each prediction in dB, which need no labels.
    """
    from ristretto_cli.caffe_io.named_weights import named_weights
    from ristretto_cli.net.build import NetState
    from ristretto_cli.quantize.header import weights_of
    from ristretto_cli.scoring.engine import compile_net
    from ristretto_cli.scoring.execution import Execution
    from ristretto_cli.scoring.net_files import score_file
    from ristretto_cli.scoring.scores import score_lines, scores_as_json

    if model is None and not Path(_QUANTIZED).exists():
        raise click.UsageError(f"missing: --model (and no {_QUANTIZED} in the current folder)")
    model = _QUANTIZED if model is None else model
    if weights is None:
        weights = weights_of(model)
        click.echo(f"Scoring {model} with {weights}, named in its header.", err=True)
    if against is not None and against_weights is None:
        against_weights = named_weights(against) or weights
        click.echo(f"Comparing with {against} with {against_weights}.", err=True)
    check_outputs([json_file(json)], [model, *weights.split(","), against, against_weights, data_flags["input"]])
    data = user_data(**data_flags)
    device = usable_gpu(gpu)
    compiler = integer_compiler(arithmetic, rounding, affine_bits)
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
            against=None if against is None or against_weights is None else (against, against_weights),
            score=score,
            data=data,
            compiler=compiler or compile_net,
            input_shapes=input_shape,
        )
    if json is not None:
        found = {
            "model": model,
            "weights": weights,
            **({} if against is None else {"against": against, "against_weights": against_weights}),
            **({} if compiler is None else {"arithmetic": arithmetic, "rounding": rounding}),
            "ap_version": ap_version.ap_version.value,
            **scores_as_json(scores),
        }
        write_json(json, found)
    if compiler is not None and compiler.argmax is not None:
        for blob, accuracy in compiler.argmax.accuracies().items():
            click.echo(f"{blob} is {accuracy:.6g} if of equal scores the first counts, as in an argmax.", err=True)
    print_result(score_lines(scores), in_log=True, json=json)
