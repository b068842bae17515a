"""Flags of glog and gflags, which every command takes, as Caffe's programs do."""

from __future__ import annotations

import fnmatch
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.errors import RistrettoError

LOG_FLAGS = "ristretto_cli.log_flags"  # key of glog's flags in click's context, by their names


class CommonFlag(click.Option):
    """A flag of every command, listed by --helpfull only."""


class ExpandedFlag(CommonFlag):
    """A flag that stands for other flags. expand: gives them from its value and the name of the program."""

    def __init__(self, *args: Any, expand: Callable[[str, str], list[str]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.expand = expand


class HelpFlag(CommonFlag):
    """A flag that shows help of some kind."""


class IdleFlag(CommonFlag):
    """A flag of glog that has no effect here, which a warning says."""


def _keep(context: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        context.meta.setdefault(LOG_FLAGS, {})[param.name] = value


def _log(name: str, help: str, **attributes: Any) -> CommonFlag:
    return CommonFlag([name], help=help, hidden=True, expose_value=False, callback=_keep, **attributes)


def _switch(name: str, help: str) -> CommonFlag:
    return _log(f"--{name}/--no{name}", help, default=None)


def _idle(names: str, **attributes: Any) -> list[IdleFlag]:
    return [
        IdleFlag([f"--{name}"], help="Without effect.", hidden=True, expose_value=False, **attributes)
        for name in names.split()
    ]


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _from_files(value: str, program: str) -> list[str]:
    return [flag for path in _names(value) for flag in _flags_of(path, program)]


def _flags_of(path: str, program: str) -> list[str]:
    """The flags in a file, one in each line; lines of patterns restrict those after them to programs of such names."""
    flags: list[str] = []
    try:
        with open_to_read(path) as stream:
            lines = stream.read().decode("utf-8-sig", "surrogateescape").splitlines()
    except RistrettoError as fault:
        raise click.UsageError(f"--flagfile: {fault}") from None
    concerns = True
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if not line.startswith("-"):
            concerns = any(fnmatch.fnmatchcase(program, os.path.basename(pattern)) for pattern in line.split())  # noqa: PTH119
        elif concerns:
            flags.append(_flag_in(line, f"{path}:{number}"))
    return flags


def _flag_in(line: str, where: str) -> str:
    """A line's flag as one argument, with its value, if it has one, after an equals sign."""
    name, space, value = line.partition(" ")
    if "=" in name or not space:
        return line
    try:
        (value,) = shlex.split(value)
    except ValueError:
        raise click.UsageError(f"{where}: expected one flag, such as --iterations=100") from None
    return f"{name}={value}"


def _from_environment(value: str, program: str) -> list[str]:
    missing = [name for name in _names(value) if f"FLAGS_{name}" not in os.environ]
    if missing:
        raise click.UsageError(f"--fromenv: there is no variable FLAGS_{missing[0]} in the environment")
    return _from_environment_if_there(value, program)


def _from_environment_if_there(value: str, program: str) -> list[str]:
    return [f"--{name}={os.environ[f'FLAGS_{name}']}" for name in _names(value) if f"FLAGS_{name}" in os.environ]


def _expanded(name: str, help: str, unit: str, expand: Callable[[str, str], list[str]]) -> ExpandedFlag:
    return ExpandedFlag([name], help=help, hidden=True, expose_value=False, metavar=unit, expand=expand)


def _vmodule(context: click.Context, param: click.Parameter, value: str | None) -> None:
    for part in _names(value or ""):
        pattern, equals, level = part.partition("=")
        if not pattern or not equals or not level.lstrip("-").isdigit():
            raise click.BadParameter(f'"{part}": expected a module and a level, such as weights=1')
    _keep(context, param, value)


def _help(name: str, help: str, **attributes: Any) -> HelpFlag:
    return HelpFlag([name], help=help, hidden=True, expose_value=False, **attributes)


_SEVERITY = click.IntRange(0, 3)

COMMON_FLAGS: Sequence[CommonFlag] = (
    _log("--log_dir", "Also write the log to files in this folder.", metavar="FOLDER"),
    _switch("logtostderr", "Write the log only to stderr, not to files."),
    _switch("alsologtostderr", "Write the log to stderr as well as to files. On by default, as in Caffe."),
    _log("--minloglevel", "The lowest severity to log: 0 info, 1 warning, 2 error.", type=_SEVERITY),
    _log("--stderrthreshold", "The lowest severity on stderr, without --alsologtostderr.", type=_SEVERITY),
    _log("--v", "Also log details up to this level.", type=int),
    CommonFlag(
        ["--vmodule"],
        help="The level of --v for single modules: module=level, separated by commas; modules may have wildcards.",
        hidden=True,
        expose_value=False,
        callback=_vmodule,
        metavar="LEVELS",
    ),
    _switch("log_prefix", "Begin lines of the log with severity, time, thread and place. On by default."),
    *_idle("colorlogtostderr drop_log_memory stop_logging_if_full_disk symbolize_stacktrace", is_flag=True),
    *_idle(
        "alsologtoemail log_backtrace_at log_link logbuflevel logbufsecs logemaillevel logmailer max_log_size",
        metavar="VALUE",
    ),
    _expanded("--flagfile", "Read flags from these files, one in each line.", "FILES", _from_files),
    _expanded("--fromenv", "Take these flags from variables: --x from FLAGS_x.", "FLAGS", _from_environment),
    _expanded("--tryfromenv", "The same, for variables that exist.", "FLAGS", _from_environment_if_there),
    CommonFlag(
        ["--undefok"], help="Flags that may be unknown.", hidden=True, expose_value=False, metavar="FLAGS", default=""
    ),
    _help("--helpfull", "Show the help with these flags.", is_flag=True),
    _help("--helpshort", "Show only the names of the flags.", is_flag=True),
    _help("--helpmatch", "Show the flags whose names contain a text.", metavar="TEXT"),
    _help("--helpon", "The same.", metavar="TEXT"),
    _help("--version", "Show the version.", is_flag=True),
)


def undefined_is_allowed(values: Sequence[str]) -> Callable[[str], bool]:
    """Whether --undefok allows a flag by its name, also as --noflag. values: of all --undefok."""
    allowed = {name.lstrip("-").replace("-", "_") for value in values for name in _names(value)}
    return lambda name: name in allowed or name.removeprefix("no") in allowed


def log_flags(context: click.Context) -> Mapping[str, Any]:
    """glog's flags that were given, by their names."""
    found: Mapping[str, Any] = context.meta.get(LOG_FLAGS, {})
    return found
