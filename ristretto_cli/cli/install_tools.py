"""Install Caffe's and Ristretto's programs and example where published scripts expect them."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand, complete_path

_EXAMPLES = """\b
Examples:
  ristretto install_tools ."""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("folder", metavar="DIR", shell_complete=complete_path)
def command(folder: str) -> None:
    """Install Caffe's and Ristretto's programs and example where published scripts expect them.

    DIR is the root of the tree: it gets build/tools/caffe, build/tools/ristretto, build/tools/convert_imageset and the
    like, each also with .bin, as links to this program; and Ristretto's SqueezeNet example, examples/ristretto and
    models/SqueezeNet. Files that are there already are kept.
    """
    from ristretto_cli.caffe_tree.install import install

    installed = install(folder)
    click.echo("\n".join([*installed.programs, *installed.files]))
    for name in installed.kept:
        click.echo(f"{name} is there already, and is kept.", err=True)
