"""Upgrade a caffemodel to the current format."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand


@click.command(cls=GflagsCommand)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
def command(source: str, target: str) -> None:
    """Upgrade a caffemodel to the current format.

    IN and OUT may be the same file. The exit code is 1 if a field that did not belong to its layer was dropped; the
    rest is still written.
    """
    from ristretto_cli.caffe_io.upgrade_file import upgrade_net_binary

    if not upgrade_net_binary(source, target):
        raise click.exceptions.Exit(1)
