"""The `ristretto` command: finds and runs a subcommand, and reports errors.

Each module of this package that defines `command`, a click.Command, at top level is a subcommand of the same name.
They are listed from their source, without an import: help does not wait for numpy or onnxruntime.
Other packages add commands by entry points.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import ModuleType

import click

from ristretto_cli import __version__
from ristretto_cli.cli import log
from ristretto_cli.cli.termination import clean_up_on_termination
from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.extensions import Extension, ExtensionError, at_fault, check_unique, extensions

_PROGRAM = "ristretto"
_CAFFE = "caffe"  # Caffe's program of this name, with the commands train, test, time and device_query
_EXTENSIONS = "ristretto.commands"  # the group of entry points
_HELP = {"help_option_names": ["--help", "-h"]}
# A command in its module's source: a function or a name at top level; and a function whose docstring follows its head.
_DEFINES_COMMAND = re.compile(r"^(?:def )?command\b", re.MULTILINE)
_DOCUMENTED_COMMAND = re.compile(r'^def command\([^()]*\) -> None:\n    """([^"\\\n]+)', re.MULTILINE)
_EXIT_CODES = """\b
Exit codes:
  0    success, even if the error margin is missed
  1    error in a file, in the net or of the machine
  2    invalid or missing flag or command
  70   internal error (a bug in ristretto)
  130  interrupted
  141  the reader of stdout is gone (as in `ristretto ... | head`)"""


def main() -> None:
    """Entry point of the console script."""
    _open_closed_streams()
    clean_up_on_termination()
    sys.exit(run(sys.argv[1:], called=called_as(sys.argv[0])))


def called_as(path: str) -> str:
    """The name of the program that is run, from argv[0]: the file's name without the endings of Caffe's builds.

    >>> called_as("build/tools/convert_imageset.bin")
    'convert_imageset'
    """
    name = Path(path).name
    for ending in (".exe", ".bin", "-d"):  # -d: CMake's debug build
        name = name.removesuffix(ending)
    return _PROGRAM if name in ("", "__main__.py") else name


def run(args: Sequence[str], package: str = __package__ or "", *, called: str = _PROGRAM) -> int:
    """Run one command line and return its exit code; errors are reported on stderr.

    package: the package of the commands. called: the name of the program. That of a command runs this command, as
    Caffe's tools are programs of their own; any other runs the command that is the first argument.
    """
    shell = Shell(package, _EXTENSIONS, called)
    if "_RISTRETTO_COMPLETE" in os.environ:
        from ristretto_cli.cli.completion import register

        register()
        shell.main(list(args), prog_name=_PROGRAM)  # which ends the process
    if called not in (_PROGRAM, _CAFFE) and called in shell.commands_by_name:
        args = [called, *args]
    if hasattr(sys.stdout, "reconfigure"):
        # A name that the terminal cannot encode must not lose a result.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(shell, args)
        sys.stdout.flush()
        return code
    except BaseException as fault:
        code, lines = _explain(fault)
        _print_error(lines)
        log.log_to_files(logging.ERROR, lines)
        if isinstance(fault, OSError):
            _give_up_unwritable_stdout()
        return code


def _open_closed_streams() -> None:
    """Redirect closed streams (`>&-`) to /dev/null; otherwise a file opened later would get their descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - the lowest free number


class Shell(click.Group):
    """The group of all commands of a package, and of other packages' entry points in a group if one is given.

    called: the name of the program.
    """

    def __init__(self, package: str, group: str = "", called: str = _PROGRAM) -> None:
        self.called = called
        super().__init__(
            _PROGRAM,
            help="Post-training quantization for trained Caffe networks.",
            epilog=_EXIT_CODES,
            context_settings=_HELP,
            options_metavar="",
            subcommand_metavar="COMMAND [--flag=value]...",
        )
        self._package = package
        self._group = group
        click.version_option(__version__, prog_name=_PROGRAM, message="%(prog)s %(version)s")(self)

    @cached_property
    def _summaries(self) -> dict[str, str]:
        """The names of the commands, sorted, each with a one-line summary."""
        added = {name: _extension_summary(points[0]) for name, points in self._extensions.items()}
        return dict(sorted({**added, **self._built_in}.items()))

    @cached_property
    def _extensions(self) -> Mapping[str, tuple[Extension, ...]]:
        return extensions(self._group) if self._group else {}

    @cached_property
    def _built_in(self) -> dict[str, str]:
        path = importlib.import_module(self._package).__path__
        names = sorted(module.name for module in pkgutil.iter_modules(path))
        found = {name: _summary(f"{self._package}.{name}") for name in names}
        return {name: summary for name, summary in found.items() if summary is not None}

    @property
    def commands_by_name(self) -> Mapping[str, str]:
        """The names of all commands, with their summaries."""
        return self._summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._extensions:
            owners = self._extensions[cmd_name]
            check_unique("command", cmd_name, owners, built_in=cmd_name in self._built_in)
            command = _extension_command(owners[0])
        elif cmd_name in self._built_in:
            command = importlib.import_module(f"{self._package}.{cmd_name}").command
            if not isinstance(command, click.Command):
                raise TypeError(f"{self._package}.{cmd_name}.command is not a click.Command")
        else:
            return None
        command.context_settings = {**_HELP, **command.context_settings}
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            args = ["--help"]
        first = args[0]
        if first.startswith("-"):
            known = {"-h": "--help", "-version": "--version"}
            known |= {f"{dash}help{kind}": "--help" for dash in ("-", "--") for kind in ("", "full", "short")}
            first = known.get(first, first)
            if first not in known.values():
                # As with gflags, flags may precede the command.
                at = next((i for i, arg in enumerate(args) if arg in self._summaries), None)
                if at is None:
                    raise click.UsageError(f"expected a command before {first}: COMMAND --flag=value", ctx)
                return super().parse_args(ctx, [args[at], *args[:at], *args[at + 1 :]])
        return super().parse_args(ctx, [first, *args[1:]])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, *rest = args
        try:
            command = self.get_command(ctx, name)
        except ExtensionError:
            if ctx.resilient_parsing:  # a shell asks for completions
                return None, None, []
            raise
        if command is None:
            hint = did_you_mean(name, self._summaries) or f"Known: {', '.join(self._summaries) or 'none'}."
            raise click.UsageError(f'unknown command "{name}". {hint}', ctx)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self._summaries:
            with formatter.section("Commands"):
                formatter.write_dl(list(self._summaries.items()))


def _summary(module: str) -> str | None:
    """The first line of a command's docstring, else of its module's; None for a module without a command."""
    spec = importlib.util.find_spec(module)
    read = getattr(spec and spec.loader, "get_source", None)
    source = (read(module) if read else None) or ""
    if not _DEFINES_COMMAND.search(source):
        return None
    if found := _DOCUMENTED_COMMAND.search(source):
        return found[1].strip()
    import ast  # slow to import; commands of other packages need it, which may be written otherwise

    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            return _first_line(ast.get_docstring(node) or ast.get_docstring(tree))
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "command" for target in targets):
            return _first_line(ast.get_docstring(tree))
    return None


def _extension_summary(extension: Extension) -> str:
    """The summary of an extension's command; names the extension if the source has none."""
    with suppress(Exception):  # importing the package to find the source may fail; the help does not need it
        if summary := _summary(extension.point.value.partition(":")[0].strip()):
            return summary
    return f"From {extension.distribution} {extension.version}."


def _extension_command(extension: Extension) -> click.Command:
    found = extension.load()
    command = getattr(found, "command", None) if isinstance(found, ModuleType) else found
    if not isinstance(command, click.Command):
        raise extension.error("is not a click.Command", f"Report this to the authors of {extension.distribution}.")
    return command


def _first_line(text: str | None) -> str:
    return text.splitlines()[0] if text else ""


def _invoke(shell: Shell, args: Sequence[str]) -> int:
    try:
        program = _CAFFE if shell.called == _CAFFE else _PROGRAM
        with shell.make_context(program, list(args), obj=shell.called) as ctx:
            log.configure(program=shell.called)
            shell.invoke(ctx)
    except click.exceptions.Exit as done:
        return done.exit_code
    return 0


def _explain(fault: BaseException) -> tuple[int, list[str]]:
    """The exit code and the lines to print for an exception that ended a command."""
    if isinstance(fault, SystemExit):
        raise fault
    if isinstance(fault, (KeyboardInterrupt, click.Abort)):
        return 130, _signed("interrupted")
    if isinstance(fault, BrokenPipeError):
        return 141, []  # as if killed by SIGPIPE: the reader is gone, so nothing is printed
    if isinstance(fault, click.UsageError):
        command = fault.ctx.command_path if fault.ctx is not None else _PROGRAM
        return 2, [*_signed(fault.format_message()), f"Try '{command} --help'."]
    if isinstance(fault, click.ClickException):
        return 1, _signed(fault.format_message())
    if isinstance(fault, RistrettoError):
        return 1, _signed(str(fault))
    if isinstance(fault, MemoryError):
        return 1, _signed("out of memory. Reduce batch_size.")
    if isinstance(fault, OSError):
        return 1, _signed(_os_error(fault))
    if isinstance(fault, ImportError) and (fault.name or _PROGRAM).split(".")[0] != "ristretto_cli":
        return 1, _signed(f"{fault}. Is ristretto-cli installed with its dependencies?")
    if os.environ.get("RISTRETTO_TRACEBACK") == "1":
        traceback.print_exception(fault)
    return 70, _signed(_bug(fault))


def _signed(text: str) -> list[str]:
    """The lines of a text, each prefixed with the program's name."""
    return [f"{_PROGRAM}: {line}" for line in text.split("\n")]


def _os_error(fault: OSError) -> str:
    what = fault.strerror or str(fault) or type(fault).__name__
    return what if fault.filename is None else f"{os.fsdecode(fault.filename)}: {what}"


def _bug(fault: BaseException) -> str:
    extension = at_fault(fault)
    whose = f"the extension {extension}" if extension else "ristretto"
    frames = traceback.extract_tb(fault.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    what = " ".join(f"{type(fault).__name__}: {fault}".split())
    return (
        f"this is a bug in {whose}: {what}{place}. "
        "Please report it with the command line (RISTRETTO_TRACEBACK=1 shows the traceback)."
    )


def _print_error(lines: Sequence[str]) -> None:
    with suppress(OSError):  # without stderr, the exit code remains
        for line in lines:
            print(log.printable(line), file=sys.stderr)
        sys.stderr.flush()


def _give_up_unwritable_stdout() -> None:
    """Discard output that stdout cannot take; otherwise Python retries at exit and prints a message of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
