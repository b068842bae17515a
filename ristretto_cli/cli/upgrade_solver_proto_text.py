"""Upgrade a solver's prototxt to the current format."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand, complete_path

_EXAMPLES = """\b
Examples:
  ristretto upgrade_solver_proto_text old_solver.prototxt solver.prototxt"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("source", metavar="IN", shell_complete=complete_path)
@click.argument("target", metavar="OUT", shell_complete=complete_path)
def command(source: str, target: str) -> None:
    """Upgrade a solver's prototxt to the current format.

    The solver's type becomes a name. IN and OUT may be the same file.
    """
    from ristretto_cli.caffe_io.upgrade_file import upgrade_solver_text

    upgrade_solver_text(source, target)
