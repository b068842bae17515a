"""Options that a trimming mode declares: a flag, its help, its check, its place in the JSON, with no list elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ristretto_cli.cli import quantize
from ristretto_cli.cli.gflags import GflagsCommand
from ristretto_cli.formats.minifloat import MinifloatMode
from ristretto_cli.formats.number_format import ModeOption, mode_options

FLAGS = ("--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2", "--bit_widths=16")
MINIFLOAT = (*FLAGS, "--trimming_mode=minifloat")
FIXED_POINT = (*FLAGS, "--trimming_mode=dynamic_fixed_point")


@pytest.fixture
def command(two_classes: Any, monkeypatch: pytest.MonkeyPatch) -> GflagsCommand:
    """`ristretto quantize` as it is where minifloat has an option of its own."""
    two_classes()
    option = ModeOption("denormals", "Whether there are denormals.", ("none", "some"), "none", in_legacy=False)
    monkeypatch.setattr(MinifloatMode, "options", (option,))
    known = quantize.command
    own = [param for param in known.params if param.name not in mode_options()]
    return GflagsCommand("quantize", params=own, callback=known.callback, late_params=quantize._mode_flags)


def run(command: GflagsCommand, args: Sequence[str], code: int) -> str:
    result = CliRunner().invoke(command, args)
    assert result.exit_code == code, result.output
    return result.output


def test_help_has_the_option_with_its_choices_its_default_and_its_mode(command: GflagsCommand) -> None:
    words = " ".join(run(command, ["--help"], 0).split())
    assert "--denormals [none|some] Whether there are denormals. Only with minifloat. [default: none]" in words
    assert "--fl_params [max|mse]" in words


def test_json_has_the_value_or_the_default_of_each_option(command: GflagsCommand) -> None:
    for flags, values in (
        ((*MINIFLOAT, "--denormals=some"), ("some", "max")),
        ((*FIXED_POINT, "--fl_params=mse"), ("none", "mse")),
    ):
        run(command, [*flags, "--json=found.json"], 0)
        found = json.loads(Path("found.json").read_text())
        assert (found["denormals"], found["fl_params"]) == values


@pytest.mark.parametrize(
    ("flags", "value"),
    [((), False), (("--unsigned",), True), (("--unsigned=true",), True), (("--unsigned=false",), False)],
)
def test_an_option_may_be_a_flag_without_a_value(command: GflagsCommand, flags: Sequence[str], value: bool) -> None:
    run(command, [*FIXED_POINT, *flags, "--json=found.json"], 0)
    assert json.loads(Path("found.json").read_text())["unsigned"] is value


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ((), "auto"),
        (("--fl_layer=range",), "range"),
        (("--legacy",), "original"),
        (("--legacy", "--fl_layer=original"), "original"),
    ],
)
def test_legacy_has_a_default_of_its_own(command: GflagsCommand, flags: Sequence[str], value: str) -> None:
    run(command, [*FIXED_POINT, *flags, "--json=found.json"], 0)
    assert json.loads(Path("found.json").read_text())["fl_layer"] == value


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((*FIXED_POINT, "--fl_layer=mse", "--legacy"), "--fl_layer=mse has no effect with --legacy"),
        ((*FIXED_POINT, "--fl_layer=auto", "--legacy"), "--fl_layer=auto has no effect with --legacy"),
        ((*FIXED_POINT, "--unsigned", "--legacy"), "--unsigned has no effect with --legacy"),
        ((*FIXED_POINT, "--same_formats", "--legacy"), "--same_formats has no effect with --legacy"),
        (
            (*MINIFLOAT, "--unsigned"),
            "--unsigned has no effect with --trimming_mode=minifloat, only with dynamic_fixed_point",
        ),
        (
            (*FLAGS, "--trimming_mode=static_fixed_point", "--same_formats"),
            "--same_formats has no effect with --trimming_mode=static_fixed_point, only with dynamic_fixed_point",
        ),
        (
            (*MINIFLOAT, "--fl_layer=mse"),
            "--fl_layer has no effect with --trimming_mode=minifloat, only with dynamic_fixed_point",
        ),
        ((*FIXED_POINT, "--same_formats", "--fl_layer=kl"), "--fl_layer=kl excludes --same_formats"),
        ((*FIXED_POINT, "--same_formats", "--bw=conv.layer_in=8"), "--bw conv.layer_in= excludes --same_formats"),
        (
            (*FIXED_POINT, "--same_formats", "--search=layers", "--minimize=bitops"),
            "--minimize=bitops excludes --same_formats",
        ),
        ((*FIXED_POINT, "--fl_layer=best"), "'best' is not one of 'original', 'range', 'mse', 'kl', 'auto'"),
        (
            (*FIXED_POINT, "--denormals=none"),
            "--denormals has no effect with --trimming_mode=dynamic_fixed_point, only with minifloat",
        ),
        ((*MINIFLOAT, "--denormals=some", "--legacy"), "--denormals=some has no effect with --legacy"),
        ((*MINIFLOAT, "--denormals=many"), "'many' is not one of 'none', 'some'"),
        ((*MINIFLOAT, "--denormal=some"), "Did you mean --denormals?"),
    ],
)
def test_a_flag_without_effect_or_with_an_unknown_value_is_refused(
    command: GflagsCommand, flags: Sequence[str], message: str
) -> None:
    assert message in run(command, flags, 2)
