"""Show the help of a command, with examples."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    root = ctx.find_root()
    names = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    return [name for name in names if name.startswith(incomplete)]


_EXAMPLES = """\b
Examples:
  ristretto help quantize"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("name", metavar="[COMMAND]", default="", shell_complete=_complete)
@click.pass_context
def command(ctx: click.Context, name: str) -> None:
    """Show the help of a command, with examples.

    `ristretto help quantize` is `ristretto quantize --help`. Without COMMAND, lists all commands.
    """
    root = ctx.find_root()
    shell = root.command
    if not name or not isinstance(shell, click.Group):
        click.echo(root.get_help())
        return
    found, described, _ = shell.resolve_command(root, [name])
    if described is not None:
        described.make_context(found, ["--help"], parent=root)
