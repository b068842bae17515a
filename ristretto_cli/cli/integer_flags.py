"""Flags of integer programs, for the commands that run and print them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ristretto_cli.cli.flag_rules import Needs, Rule
from ristretto_cli.cli.gflags import option

if TYPE_CHECKING:
    from ristretto_cli.integers.runner import IntegerCompiler

F = TypeVar("F", bound=Callable[..., Any])

ROUNDINGS = ("half_even", "half_up", "away", "floor")
_ARITHMETICS = ("float", "integer")

ARITHMETIC_RULES: list[Rule] = [
    Needs("--rounding", "--arithmetic", "integer"),
    Needs("--affine_bits", "--arithmetic", "integer"),
]


def rounding_option(command: F) -> F:
    """--rounding, of the sums of an integer program."""
    return option(
        "--rounding",
        "How integers are rounded where bits are dropped: half_even, as the net is scored in float; half_up: (n + half)"
        " >> shift; away: ties away from zero; floor: n >> shift.",
        type=click.Choice(ROUNDINGS),
        default=ROUNDINGS[0],
    )(command)


def affine_bits_option(command: F) -> F:
    """--affine_bits, of BatchNorm and Scale layers in an integer program."""
    return option(
        "--affine_bits",
        "Fraction bits of what BatchNorm, Scale and the like give where no layer quantizes it at once.",
        type=click.IntRange(1, 32),
        default=24,
    )(command)


def arithmetic_options(command: F) -> F:
    """--arithmetic, and the flags of integer arithmetic, for integer_compiler."""
    arithmetic = option(
        "--arithmetic",
        "Compute in float, or only in integers, as hardware does, from the first quantized layer to the last.",
        type=click.Choice(_ARITHMETICS),
        default=_ARITHMETICS[0],
    )
    return arithmetic(rounding_option(affine_bits_option(command)))


def integer_compiler(arithmetic: str, rounding: str, affine_bits: int) -> IntegerCompiler | None:
    """What runs nets by their integer programs; None for float arithmetic."""
    if arithmetic == _ARITHMETICS[0]:
        return None
    for name in ("graph", "graph_passes"):
        if click.get_current_context().get_parameter_source(name) not in (None, ParameterSource.DEFAULT):
            raise click.UsageError(f"--{name} has no effect with --arithmetic=integer")
    from ristretto_cli.integers.rounding import ShiftRounding
    from ristretto_cli.integers.runner import IntegerCompiler

    return IntegerCompiler(rounding=ShiftRounding(rounding), affine_bits=affine_bits)
