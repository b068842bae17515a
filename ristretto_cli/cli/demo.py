"""Unpack an example, handwritten digits, into a new folder and run it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ristretto_cli.cli.gflags import GflagsCommand, complete_path

_FOLDER = "ristretto-demo"
_PACKAGES = str(Path(__file__).resolve().parents[2])
_EXAMPLES = """\b
Examples:
  ristretto demo
  ristretto demo /tmp/digits"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("folder", metavar="[DIR]", default=_FOLDER, shell_complete=complete_path)
def command(folder: str) -> None:
    """Unpack an example, handwritten digits, into a new folder and run it.

    Quantizes a small net, scores it, lists its layers and exports it; if torch is installed, also fine-tunes it. Shows
    each command. DIR is ristretto-demo by default; its files stay there.
    """
    from ristretto_cli.demo.steps import can_train, steps, unpack

    _say(f"== Unpack the example into {folder}")
    _say("\n".join(unpack(folder)))
    train = can_train()
    for step in steps(train=train):
        _say(f"\n== {step.title}\n$ ristretto {shlex.join(step.arguments)}")
        if code := _run(step.arguments, folder):
            raise click.exceptions.Exit(code)
    if not train:
        _say("\ntorch is not installed, so the net is not fine-tuned: pip install 'ristretto-cli[train]'")
    _say(f"\nAll files are in {folder}; readme.md describes them. With a net of your own:")
    _say("$ ristretto quantize --model NET --weights FILE --trimming_mode dynamic_fixed_point")


def _run(arguments: Sequence[str], folder: str) -> int:
    """Run a command in a folder, and return its exit code; its log is restricted to warnings, unless set otherwise."""
    path = os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH", "")]))
    environment = {"GLOG_minloglevel": "1", **os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-m", "ristretto_cli", *arguments], cwd=folder, env=environment, check=False)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _say(text: str) -> None:
    """Print text on stdout before the next command does."""
    click.echo(text)
    sys.stdout.flush()
