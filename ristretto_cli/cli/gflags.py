"""Flags in all the spellings of gflags, for click commands: `--flag=v`, `-flag=v`, `-flag v`, `--noflag`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard, TypeVar

import click
from click.core import ParameterSource

from ristretto_cli import __version__
from ristretto_cli.cli.common_flags import (
    COMMON_FLAGS,
    CommonFlag,
    ExpandedFlag,
    HelpFlag,
    IdleFlag,
    log_flags,
    undefined_is_allowed,
)
from ristretto_cli.cli.flag_rules import Rule
from ristretto_cli.cli.log import configure
from ristretto_cli.errors import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

log = logging.getLogger("ristretto")

F = TypeVar("F", bound=Callable[..., Any])

_PATHS = ("file", "files", "npz", "path")  # units of flags
_WORDS = "ristretto_cli.words"  # key of the words of flags in click's context

_ON, _OFF = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


def option(name: str, help: str, *, unit: str | None = None, **attributes: Any) -> Callable[[F], F]:
    """click.option with the common form of help: description, unit and default.

    name: as declared and shown, `--error_margin`. unit: shown after the name (`--error_margin PERCENT`).
    Without a unit click shows the type; if the unit is a path's, shells complete paths. attributes: click's own (type,
    default, required, is_flag ...).
    """
    if unit is not None:
        attributes["metavar"] = unit.upper()
        if unit in _PATHS:
            attributes.setdefault("shell_complete", complete_path)
    # Neither "" nor a flag that is off needs to be shown.
    shown = attributes.get("default") != "" and (not attributes.get("is_flag") or attributes.get("default") is True)
    attributes.setdefault("show_default", shown)
    return click.option(name, help=help, **attributes)


def complete_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The completion of a path, which is the shell's own."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


class NegativeFlag(click.Option):
    """A boolean flag that is a negation itself, such as --noscore: --nonoscore is accepted, but not in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (record[0].partition(" / ")[0], record[1])


class GflagsCommand(click.Command):
    """A command whose flags accept every spelling of gflags; of repeated flags the last one wins, with a warning.

    rules: constraints between flags; a violation is a usage error. late_params: flags declared by registries, which
    are loaded only when the command line is parsed or the help is shown.

    `-` and `_` are equivalent in a name, and so are one dash and two. A boolean is given as `--flag`,
    `--noflag` or `--flag=true`, never as `--flag true`. A value may begin with a dash. Positional arguments are
    rejected unless the command declares some. All misspelled flags are reported, not just the first. The flags of glog
    and gflags themselves, COMMON_FLAGS, are added.
    """

    def __init__(
        self,
        *args: Any,
        rules: Sequence[Rule] = (),
        late_params: Callable[[], Sequence[click.Option]] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.rules = tuple(rules)
        self._late_params = late_params
        own = {name for param in self.params for name in param.opts}
        self.params += [flag for flag in COMMON_FLAGS if own.isdisjoint(flag.opts)]
        for param in self.params:
            if _is_boolean(param) and not param.secondary_opts:
                param.secondary_opts = [f"--no{_key(_name(param))}"]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if self._late_params is not None:
            late, self._late_params = self._late_params, None
            self.params += late()
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click completes unfinished lines by parsing them; errors do not matter there.
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        plain, warnings = self._plain_click(ctx, args)
        rest = super().parse_args(ctx, plain)
        configure(flags=log_flags(ctx), program=_program(ctx))
        values = {_name(param): ctx.params[param.name] for param in self.params if _is_valued(param)}
        faults = [rule.fault(given_flags(ctx), values) for rule in self.rules]
        if any(faults):
            raise click.UsageError("\n".join(filter(None, faults)), ctx)
        for warning in warnings:
            log.warning("%s", warning)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        if any(param in COMMON_FLAGS for param in self.params):
            formatter.write_paragraph()
            formatter.write_text("The flags of glog and gflags, such as --log_dir and --flagfile: --helpfull.")

    def _plain_click(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        """The arguments in click's own spelling, with warnings; UsageError with a line per error."""
        flags = _by_name(self.get_params(ctx))
        line = _Line(flags, _program(ctx))
        line.read(args)
        if "help" in flags and flags["help"] in line.seen:
            return ["--help"], []
        if line.shown:
            self._show(ctx, *line.shown[0])
        unknown = line.unknown()
        faults = [message for name, message in line.faults if not name or name in unknown]
        strays = line.strays
        if not any(isinstance(param, click.Argument) for param in self.params):
            faults += [f'unexpected "{arg}": values are given as --flag=value' for arg in strays]
            strays = []
        required = [param for param in self.params if isinstance(param, click.Option) and param.required]
        missing = [_name(param) for param in required if param not in line.seen and param.envvar is None]
        # An unknown flag is most likely the missing one, misspelled.
        if missing and not unknown:
            faults.append(f"missing: {', '.join(missing)}")
        if faults:
            raise click.UsageError("\n".join(faults), ctx)
        warnings = [
            f"{_name(param)} is given {len(several)} times: the last one counts, {_spelled(several[-1])}."
            for param, several in line.words.items()
            if not param.multiple and any(one != several[-1] for one in several)
        ]
        warnings += [f"{_name(param)} has no effect here." for param in line.words if isinstance(param, IdleFlag)]
        plain = [word for several in line.words.values() for words in several for word in words]
        ctx.meta[_WORDS] = {_name(param): several[-1] for param, several in line.words.items()}
        return ([*plain, "--", *strays] if strays else plain), warnings

    def _show(self, ctx: click.Context, kind: str, text: str) -> NoReturn:
        """Print the version, or help of a kind, and end the command."""
        if kind == "version":
            click.echo(f"ristretto {__version__}")
            ctx.exit()
        formatter = ctx.make_formatter()
        own = [param for param in self.get_params(ctx) if isinstance(param, click.Option) and not param.hidden]
        if kind == "helpfull":
            self.format_help(ctx, formatter)
            formatter.write_paragraph()
            _write_flags(formatter, "Flags of glog and gflags", COMMON_FLAGS, ctx)
        elif kind == "helpshort":
            self.format_usage(ctx, formatter)
            formatter.write_paragraph()
            formatter.write_text(" ".join(map(_name, own)))
        else:
            found = [param for param in (*own, *COMMON_FLAGS) if text.lower() in _name(param).lower()]
            if not found:
                raise click.UsageError(f'no flag has "{text}" in its name', ctx)
            self.format_usage(ctx, formatter)
            _write_flags(formatter, f'Flags with "{text}"', found, ctx)
        click.echo(formatter.getvalue().rstrip("\n"))
        ctx.exit()


class _Line:
    """A command line, read flag by flag.

    words: the flags in click's own spelling. seen: those that were found, with or without a valid value. strays: other
    arguments. faults: messages, each with the name of the unknown flag or "". shown: the flags that show help, and
    their values.
    """

    def __init__(self, flags: Mapping[str, click.Option], program: str) -> None:
        self.words: dict[click.Option, list[Sequence[str]]] = {}
        self.seen: set[click.Option] = set()
        self.strays: list[str] = []
        self.faults: list[tuple[str, str]] = []
        self.shown: list[tuple[str, str]] = []
        self._flags = flags
        self._program = program
        self._expanded: set[tuple[str, str]] = set()

    def read(self, args: Sequence[str]) -> None:
        """Read arguments, and those that they stand for (--flagfile)."""
        rest = list(args)
        while rest:
            arg = rest.pop(0)
            if arg == "--":
                self.strays += rest
                break
            if len(arg) < 2 or not arg.startswith("-"):
                self.strays.append(arg)
                continue
            param = self._flags.get(_key(arg))
            if param is None:
                self.faults.append((_key(arg), _unknown(arg, rest, self._flags)))
                continue
            text = arg.partition("=")[2]
            if _key(arg) == "help" and text and text.lower() not in _ON + _OFF:
                self.shown.append(("helpmatch", text))  # --help=x
                continue
            self.seen.add(param)
            try:
                self._take(param, _read(param, arg, rest, self._flags), rest)
            except click.UsageError as fault:
                self.faults.append(("", fault.message))

    def unknown(self) -> set[str]:
        """The names of unknown flags that --undefok does not allow."""
        values = [
            spelled[-1] for param, several in self.words.items() if param.name == "undefok" for spelled in several
        ]
        allowed = undefined_is_allowed(values)
        return {name for name, _ in self.faults if name and not allowed(name)}

    def _take(self, param: click.Option, spelled: Sequence[str], rest: list[str]) -> None:
        if isinstance(param, ExpandedFlag):
            name, value = spelled
            if (name, value) in self._expanded:
                raise click.UsageError(f"{name}={value} is given twice, or by itself")
            self._expanded.add((name, value))
            rest[:0] = param.expand(value, self._program)
            return
        self.words.setdefault(param, []).append(spelled)
        if isinstance(param, HelpFlag) and spelled[0] in param.opts:
            self.shown.append((_name(param).removeprefix("--"), spelled[-1]))


def given_words(ctx: click.Context) -> Mapping[str, Sequence[str]]:
    """The words of the flags on the command line, in click's spelling, by the flags' names in the help."""
    words: Mapping[str, Sequence[str]] = ctx.meta.get(_WORDS, {})
    return words


def command_line(ctx: click.Context) -> str:
    """The command with its flags, as a line for a shell."""
    words = [word for several in given_words(ctx).values() for word in several]
    return shlex.join([*ctx.command_path.split(), *words])


def given_flags(ctx: click.Context) -> Collection[str]:
    """The flags given on the command line, by their names in the help, except those that are empty or off.

    A flag that is on by default is listed if it is switched off, as --noflag.
    """
    return [
        param.secondary_opts[0] if _is_boolean(param) and param.default is True else _name(param)
        for param in ctx.command.params
        if _is_valued(param)
        and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        and not _is_idle(param, ctx.params[param.name])
    ]


def _is_valued(param: click.Parameter) -> TypeGuard[click.Option]:
    return isinstance(param, click.Option) and param.expose_value


def _is_idle(param: click.Option, value: Any) -> bool:
    """Whether a value is empty, or a boolean's default."""
    if _is_boolean(param):
        return value is (param.default is True)
    return value is None or (isinstance(value, Sized) and len(value) == 0)


def _spelled(words: Sequence[str]) -> str:
    """A flag in click's spelling, as a user writes it."""
    return "=".join(words) if words[1:] != [""] else f'{words[0]}=""'


def _read(param: click.Option, arg: str, rest: list[str], flags: Mapping[str, click.Option]) -> Sequence[str]:
    """One flag in click's spelling; its value is taken from rest if the argument holds none."""
    given, equals, value = arg.partition("=")
    if _is_boolean(param):
        on = _key(given) in map(_key, param.opts)
        if equals:
            if not on or value.lower() not in _ON + _OFF:
                raise click.UsageError(f'{_name(param)} is on or off: {given} cannot be "{value}"')
            on = value.lower() in _ON
        return (param.opts if on else param.secondary_opts)[:1]
    if not equals:
        if not rest or (rest[0].startswith("-") and _key(rest[0]) in flags):
            raise click.UsageError(f"{_name(param)} needs a value: {_name(param)}=...")
        value = rest.pop(0)
    return [_name(param), value]


def _program(ctx: click.Context) -> str:
    """The name by which the program was called, for names of log files and in flag files."""
    root = ctx.find_root()
    return str(root.obj or root.info_name or "ristretto")


def _write_flags(
    formatter: click.HelpFormatter, title: str, params: Sequence[click.Option], ctx: click.Context
) -> None:
    with formatter.section(title):
        formatter.write_dl([(_usage_of(param), param.help or "") for param in params])


def _usage_of(param: click.Option) -> str:
    if param.is_flag or _is_boolean(param):
        return _name(param)
    return f"{_name(param)} {param.metavar or param.type.name.upper()}"


def _unknown(arg: str, rest: list[str], flags: Mapping[str, click.Option]) -> str:
    """The message for an unknown flag; its value, if it has one, is removed from rest."""
    given, equals, _ = arg.partition("=")
    if not equals and rest and not rest[0].startswith("-"):
        rest.pop(0)  # most likely the unknown flag's value, not another error
    own = [_name(param) for param in flags.values() if not isinstance(param, CommonFlag)]
    near = did_you_mean(f"--{_key(given)}", own) or did_you_mean(f"--{_key(given)}", map(_name, flags.values()))
    return f"unknown flag {given}" + (f". {near}" if near else "")


def _by_name(params: Iterable[click.Parameter]) -> Mapping[str, click.Option]:
    """The flags by all their names, --noflag included."""
    options = [param for param in params if isinstance(param, click.Option)]
    return {_key(name): param for param in options for name in (*param.opts, *param.secondary_opts)}


def _is_boolean(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and param.is_bool_flag


def _key(arg: str) -> str:
    """The flag's name in an argument: without dashes and value, with uniform separators."""
    return arg.partition("=")[0].removeprefix("-").removeprefix("-").replace("-", "_")


def _name(param: click.Parameter) -> str:
    """A flag's long name, as shown in the help."""
    return max(param.opts, key=len)
