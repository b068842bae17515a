"""Completion by the shell, by click, also for gflags' spellings: `-flag value`, and `--flag=value` in bash."""

from __future__ import annotations

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete, add_completion_class


def register() -> None:
    """Replace click's completion for bash, zsh and fish."""
    for shell in (BashComplete, ZshComplete, FishComplete):
        add_completion_class(_for_gflags(shell))


def _for_gflags(shell: type[ShellComplete]) -> type[ShellComplete]:
    class Complete(shell):  # type: ignore[valid-type, misc]
        def get_completion_args(self) -> tuple[list[str], str]:
            return in_clicks_spelling(*super().get_completion_args())

    return Complete


def in_clicks_spelling(args: list[str], incomplete: str) -> tuple[list[str], str]:
    """A command line as click spells it: the words before the incomplete one, and that one.

    >>> in_clicks_spelling(["quantize", "-trimming-mode", "="], "dy")
    (['quantize', '--trimming_mode'], 'dy')
    """
    # bash makes a word of each equals sign, also of the one that is being completed.
    return [_spelled(arg) for arg in args if arg != "="], "" if incomplete == "=" else _spelled(incomplete)


def _spelled(arg: str) -> str:
    if not arg.startswith("-") or arg == "--":
        return arg
    name, equals, value = arg.removeprefix("-").removeprefix("-").partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
