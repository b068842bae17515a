"""Help, its examples, and completion by the shell."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import click
import pytest

from ristretto_cli.cli.main import Shell, run

SHELL = Shell("ristretto_cli.cli")
COMMANDS = list(SHELL.commands_by_name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str) -> None:
    # tests/docs checks that they are valid.
    with click.Context(SHELL, info_name="ristretto") as context:
        command = SHELL.get_command(context, name)
    assert command is not None
    assert f"\n  ristretto {name}" in (command.epilog or "")


def test_help_of_a_command_is_what_its_flag_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "plot"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert run(["plot", "--help"]) == 0
    assert capsys.readouterr().out == shown


def test_help_without_a_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_help_of_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "quantiz"]) == 2
    assert 'unknown command "quantiz". Did you mean quantize?' in capsys.readouterr().err


def completions(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    done = subprocess.run(
        [sys.executable, "-m", "ristretto_cli"],
        env={
            **os.environ,
            "_RISTRETTO_COMPLETE": "bash_complete",
            "COMP_WORDS": shlex.join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["qu"], ["plain,quantize"]),
        (["help", "qu"], ["plain,quantize"]),
        (["quantize", "--trimming"], ["plain,--trimming_mode"]),
        (["quantize", "-trimming-m"], ["plain,--trimming_mode"]),
        (["quantize", "--trimming_mode", "minif"], ["plain,minifloat"]),
        (["quantize", "-trimming-mode", "minif"], ["plain,minifloat"]),
        (["quantize", "--trimming_mode", "=", "minif"], ["plain,minifloat"]),
        (["quantize", "--graph", "="], ["plain,fast", "plain,plain"]),
        (["export", "--format", "np"], ["plain,npz"]),
        (["quantize", "--model", "x"], ["file,x"]),
        (["test", "--input", "x"], ["file,x"]),
        (["plot", "x"], ["file,x"]),
    ],
    ids=" ".join,
)
def test_completion(words: list[str], offered: list[str]) -> None:
    assert completions("ristretto", *words) == offered
