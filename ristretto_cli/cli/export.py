"""Write a net or its weights in another format."""

from __future__ import annotations

import click
from click.core import ParameterSource

from ristretto_cli.cli.flag_rules import Needs
from ristretto_cli.cli.flags import RegistryOption, check_outputs, phase_option, state_options
from ristretto_cli.cli.gflags import GflagsCommand, option

_RULES = [
    Needs("--level", "--model"),
    Needs("--stage", "--model"),
    Needs("--allow_missing_weights", "--model"),
]


@click.command(cls=GflagsCommand, rules=_RULES)
@option(
    "--format",
    "The format to write.",
    unit="format",
    required=True,
    cls=RegistryOption,
    registry="ristretto_cli.exports.exporter:EXPORTS",
)
@option("--model", "The net's definition, a prototxt.", unit="file")
@option("--weights", "The weights, .caffemodel or .h5.", unit="file")
@option("--output", "The file to write.", unit="file", required=True)
@phase_option
@state_options
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
def command(
    format: str,
    model: str | None,
    weights: str | None,
    output: str,
    phase: int,
    level: int,
    stage: tuple[str, ...],
    allow_missing_weights: bool,
) -> None:
    """Write a net or its weights in another format.

    npz contains arrays under the keys layer/i. Without --model, these are the arrays of the weights file; with --model,
    the parameters as the layers of the net's TEST phase use them, quantized if the layer quantizes them.
    """
    from ristretto_cli.exports.exporter import EXPORTS, ExportRequest

    exporter = EXPORTS.get(format)
    source = click.get_current_context().get_parameter_source("phase")
    if source is not ParameterSource.DEFAULT and not exporter.takes_phase:
        raise click.UsageError(f"--phase has no effect with --format={format}")
    check_outputs([output], [model, weights])
    request = ExportRequest(model, weights, output, phase, level, stage, allow_missing_weights)
    click.echo(exporter.write(request))
