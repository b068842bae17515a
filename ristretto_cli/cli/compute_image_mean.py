"""Compute the mean image of a database."""

from __future__ import annotations

import click

from ristretto_cli.cli.flags import check_outputs, print_result
from ristretto_cli.cli.gflags import GflagsCommand, complete_path, option

_EXAMPLES = """\b
Examples:
  ristretto compute_image_mean train_lmdb mean.binaryproto"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("input_db", metavar="INPUT_DB", shell_complete=complete_path)
@click.argument("output_file", metavar="[OUTPUT_FILE]", required=False, shell_complete=complete_path)
@option("--backend", "The format of INPUT_DB.", type=click.Choice(["lmdb", "leveldb"]), default="lmdb")
def command(input_db: str, output_file: str | None, backend: str) -> None:
    """Compute the mean image of a database.

    Prints the mean of each channel, and writes the mean image to OUTPUT_FILE, a .binaryproto for the mean_file of a
    net.
    """
    from ristretto_cli.datasets.mean import mean_of_database, write_mean
    from ristretto_cli.datasets.new_database import Backend
    from ristretto_cli.scoring.scores import number

    check_outputs([output_file], [])
    mean = mean_of_database(input_db, Backend(backend))
    if output_file is not None:
        write_mean(output_file, mean)
    means = [f"mean_value channel [{i}]: {number(value)}" for i, value in enumerate(mean.channels)]
    print_result([f"Number of channels: {len(means)}", *means])
