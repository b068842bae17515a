"""Flags for nets without data: --input_shape, and case-insensitive choices."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ristretto_cli.cli.gflags import option

F = TypeVar("F", bound=Callable[..., Any])


def input_shape_option(command: F) -> F:
    """--input_shape, once per blob, for any data layer; the shapes by blob name."""
    return _option("The shape of a data layer's top, such as data=1,3,224,224. Repeat for each blob.")(command)


def other_input_shape_option(command: F) -> F:
    """--input_shape, once per blob, for inputs without data of their own; the shapes by blob name."""
    return _option(
        "Another shape for an input without data of its own (Input, MemoryData), such as data=1,3,227,227. Repeat for "
        "each blob."
    )(command)


def _option(text: str) -> Callable[[F], F]:
    return option("--input_shape", text, unit="blob=n,n...", multiple=True, callback=_shapes)


class Words(click.Choice):  # type: ignore[type-arg]
    """A case-insensitive choice of words in capitals."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value.upper() if isinstance(value, str) else value, param, ctx)


def _shapes(context: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, numbers = value.rpartition("=")
        if not name or not re.fullmatch(r"[0-9]{1,18}([,x][0-9]{1,18})*", numbers, re.ASCII):
            raise click.BadParameter(f'"{value}": expected a shape such as data=1,3,224,224')
        shape = tuple(int(number) for number in re.split("[,x]", numbers))
        if min(shape) < 1:
            raise click.BadParameter(f'"{value}": every dimension must be at least 1')
        if name in found:
            raise click.BadParameter(f'"{name}" is given twice')
        found[name] = shape
    return found
