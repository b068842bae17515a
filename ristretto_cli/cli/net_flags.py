"""Flags of the commands that look at nets: --input_shape for data that is not there, and choices of words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ristretto_cli.cli.gflags import option

F = TypeVar("F", bound=Callable[..., Any])


def input_shape_option(command: F) -> F:
    """--input_shape, once for each blob; the shapes by the blobs' names."""
    return option(
        "--input_shape",
        "A shape for a top of a data layer, such as data=1,3,224,224; once for each such blob.",
        unit="blob=n,n...",
        multiple=True,
        callback=_shapes,
    )(command)


class Words(click.Choice):  # type: ignore[type-arg]
    """One of some words in capitals, which may be given in small letters."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value.upper() if isinstance(value, str) else value, param, ctx)


def _shapes(context: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, numbers = value.rpartition("=")
        if not name or not re.fullmatch(r"[0-9]{1,18}([,x][0-9]{1,18})*", numbers, re.ASCII):
            raise click.BadParameter(f'"{value}" is no shape such as data=1,3,224,224')
        shape = tuple(int(number) for number in re.split("[,x]", numbers))
        if min(shape) < 1:
            raise click.BadParameter(f'"{value}": every extent must be 1 or more')
        if name in found:
            raise click.BadParameter(f'"{name}" has two shapes')
        found[name] = shape
    return found
