"""Show where a trimmed net loses accuracy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ristretto_cli.cli.data_flags import DATA_RULES, data_options, user_data
from ristretto_cli.cli.flag_rules import Needs
from ristretto_cli.cli.flags import (
    STDOUT,
    Finite,
    check_outputs,
    gpu_option,
    json_file,
    json_option,
    threads_option,
    usable_gpu,
    write_json,
)
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.log import printable
from ristretto_cli.cli.progress import progress

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest

_QUANTIZED = "quantized.prototxt"


_EXAMPLES = """\b
Examples:
  ristretto analyze --model quantized.prototxt --iterations 5
  ristretto analyze --model quantized.prototxt --against other.prototxt --csv parts.csv"""


@click.command(cls=GflagsCommand, rules=[Needs("--against_weights", "--against"), *DATA_RULES], epilog=_EXAMPLES)
@option("--model", f"The trimmed net, a prototxt. Default: {_QUANTIZED} in the current folder.", unit="file")
@option(
    "--weights", "The weights, files separated by commas. Default: the file named in the model's header.", unit="files"
)
@option(
    "--against",
    "The float net that was trimmed; by default the model without its quantization. If this net is trimmed as well, "
    "both are analyzed, and their parts are compared.",
    unit="file",
)
@option(
    "--against_weights",
    "The weights of that net. Default: the file named in its header, else those of --weights.",
    unit="files",
)
@option("--iterations", "Number of batches to run.", type=click.IntRange(min=1), default=5)
@option("--target_sqnr", "The signal to noise ratio, in dB, for the bits needed.", type=Finite(), default=30.0)
@option("--leave_one_out", "Also measure the trimmed net with each layer float, which takes longer.", is_flag=True)
@data_options
@gpu_option
@threads_option
@json_option("the analysis, with histograms,")
@option("--csv", "Also write the parts to this file, for spreadsheets.", unit="file")
def command(
    model: str | None,
    weights: str | None,
    against: str | None,
    against_weights: str | None,
    iterations: int,
    target_sqnr: float,
    leave_one_out: bool,
    gpu: GpuRequest,
    threads: int,
    json: str | None,
    csv: str | None,
    **data_flags: Any,
) -> None:
    """Show where a trimmed net loses accuracy.

    For the inputs, outputs, weights and biases of each trimmed layer: their range, the values that saturate or become
    0, their signal to noise ratio, and what the net loses if only they are trimmed. Those that cost most come first.
    """
    from ristretto_cli.caffe_io.files import write_atomically
    from ristretto_cli.caffe_io.named_weights import named_weights
    from ristretto_cli.quantize.analysis_report import (
        analysis_as_csv,
        analysis_as_json,
        analysis_lines,
        comparison_lines,
    )
    from ristretto_cli.quantize.analyze import AnalysisOptions, analyze, has_trimmed_layers
    from ristretto_cli.quantize.header import weights_of
    from ristretto_cli.scoring.execution import Execution

    if model is None and not Path(_QUANTIZED).exists():
        raise click.UsageError(f"missing: --model (and no {_QUANTIZED} in the current folder)")
    model = _QUANTIZED if model is None else model
    if weights is None:
        weights = weights_of(model)
        click.echo(f"Analyzing {model} with {weights}, named in its header.", err=True)
    if against is not None and against_weights is None:
        against_weights = named_weights(against) or weights
        click.echo(f"Comparing with {against} with {against_weights}.", err=True)
    inputs = [model, *weights.split(","), against, *(against_weights or "").split(","), data_flags["input"]]
    check_outputs([json_file(json), csv], inputs)
    data = user_data(**data_flags)
    device = usable_gpu(gpu)
    other = None if against is None or against_weights is None else (against, against_weights)
    is_second = other is not None and has_trimmed_layers(other[0])
    with progress("analyze") as bar:
        options = AnalysisOptions(
            iterations=iterations,
            target_sqnr=target_sqnr,
            leave_one_out=leave_one_out,
            all_batches=is_second,
            data=data,
            execution=Execution(device, threads, ()),  # its graphs run only a few times
            on_batch=bar.on_batch,
        )
        analysis = analyze(model, weights, options, against=None if is_second else other)
        second = analyze(*other, options) if other is not None and is_second else None
    if csv is not None:
        write_atomically(csv, analysis_as_csv(analysis))
    if json is not None:
        found = analysis_as_json(analysis)
        if second is not None:
            found["other"] = analysis_as_json(second)
        write_json(json, found)
    if json != STDOUT:
        lines = analysis_lines(analysis, columns=shutil.get_terminal_size().columns)
        if second is not None:
            lines += ["", *comparison_lines(analysis, second)]
        click.echo(printable("\n".join(lines)))
