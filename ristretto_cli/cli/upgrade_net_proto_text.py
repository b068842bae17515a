"""Upgrade a net's prototxt to the current format."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand, complete_path

_EXAMPLES = """\b
Examples:
  ristretto upgrade_net_proto_text old.prototxt new.prototxt"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("source", metavar="IN", shell_complete=complete_path)
@click.argument("target", metavar="OUT", shell_complete=complete_path)
def command(source: str, target: str) -> None:
    """Upgrade a net's prototxt to the current format.

    IN and OUT may be the same file. The exit code is 1 if a field that did not belong to its layer was dropped; the
    rest is still written.
    """
    from ristretto_cli.caffe_io.upgrade_file import upgrade_net_text

    if not upgrade_net_text(source, target):
        raise click.exceptions.Exit(1)
