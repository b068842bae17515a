"""Upgrade a solver's prototxt to the current format."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand


@click.command(cls=GflagsCommand)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
def command(source: str, target: str) -> None:
    """Upgrade a solver's prototxt to the current format.

    The solver's type becomes a name. IN and OUT may be the same file.
    """
    from ristretto_cli.caffe_io.upgrade_file import upgrade_solver_text

    upgrade_solver_text(source, target)
