"""Show the shapes, parameters and multiply-accumulates of a net's layers."""

from __future__ import annotations

import click

from ristretto_cli.cli.flags import (
    STDOUT,
    check_outputs,
    json_file,
    json_option,
    phase_option,
    state_options,
    write_json,
)
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.log import printable
from ristretto_cli.cli.net_flags import input_shape_option

_EXAMPLES = """\b
Examples:
  ristretto summary --model quantized.prototxt"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@option("--model", "The net's definition, a prototxt.", unit="file", required=True)
@phase_option
@state_options
@input_shape_option
@option(
    "--bitops",
    "Also show bit operations (MACs times the bits of weights and inputs) and the bits of activations.",
    is_flag=True,
)
@json_option("the summary")
def command(
    model: str,
    phase: int,
    level: int,
    stage: tuple[str, ...],
    input_shape: dict[str, tuple[int, ...]],
    bitops: bool,
    json: str | None,
) -> None:
    """Show the shapes, parameters and multiply-accumulates of a net's layers.

    Needs neither weights nor data: without a database, crop_size, mean_file or --input_shape gives the shape.
    """
    from ristretto_cli.analysis.nets_without_data import build_without_data
    from ristretto_cli.analysis.summary import summarize, summary_as_json, summary_lines
    from ristretto_cli.caffe_io.net_file import read_net
    from ristretto_cli.net.build import NetState

    check_outputs([json_file(json)], [model])
    summary = summarize(build_without_data(read_net(model), NetState(phase, level, stage), input_shape))
    if json is not None:
        write_json(json, summary_as_json(summary, bitops=bitops))
    if json != STDOUT:
        click.echo(printable("\n".join(summary_lines(summary, bitops=bitops))))
