"""Draw the loss, accuracy and learning rate in training logs."""

from __future__ import annotations

import click

from ristretto_cli.cli.flags import check_outputs
from ristretto_cli.cli.gflags import GflagsCommand, complete_path, option
from ristretto_cli.cli.progress import progress

_EXAMPLES = """\b
Examples:
  ristretto plot --output curves.png train.log"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, shell_complete=complete_path)
@option("--output", "The image to write, .png or .svg.", unit="file", required=True)
@option("--smooth", "Number of logged values to average for each point.", type=click.IntRange(min=1), default=1)
def command(logs: tuple[str, ...], output: str, smooth: int) -> None:
    """Draw the loss, accuracy and learning rate in training logs.

    Each LOG is the stderr of `ristretto train` or `caffe train`. Several logs are drawn in the same plot.
    """
    from ristretto_cli.train.curves import read_curves
    from ristretto_cli.train.plot import draw

    check_outputs([output], logs)
    with progress("plot") as bar:
        curves = [read_curves(log, bar.on_batch) for log in logs]
    draw(curves, output, smooth=smooth)
    click.echo(f"{output}: the curves of {len(curves)} log{'s' if len(curves) > 1 else ''}")
