"""What is known of values on grids: the ways to have them in an ONNX graph, and what products were made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ristretto_cli.backends.onnx_graph import Node
from ristretto_cli.ops import Grid


class Blocks(Enum):
    """How a value comes to have its channels in blocks."""

    NO = "it has not"
    MADE = "a convolution made it"
    KEPT = "a pooling of such a value kept them; what it read was cut off"


@dataclass(frozen=True)
class Stored:
    """A value on a grid, and other ways to have it; each is recorded when it is first asked for.

    whole: float32 multiples of the grid's step. bytes: the same plus ZERO, as uint8, where they fit. as_bytes: the
    bytes are computed, and the rest comes of them. uncut: those bytes before what is below 0 is cut off. unrounded:
    what is rounded and cut off to give `whole`. in_blocks: how that is laid out. rectified: bytes that are right where
    the value is above 0, of a product that has no others. parts: what the value is the concatenation of, no such values
    themselves, and along which axis. value: the value itself, where it is not to come of `whole`. links: how many of
    these functions may have to call each other.
    """

    grid: Grid
    whole: Callable[[], Node]
    bytes: Callable[[], Node] | None = None
    as_bytes: bool = False
    uncut: Callable[[], Node] | None = None
    unrounded: Callable[[], Node] | None = None
    in_blocks: Blocks = Blocks.NO
    rectified: Callable[[], Node] | None = None
    parts: tuple[tuple[Node, ...], int] | None = None
    value: Callable[[], Node] | None = None
    links: int = 0


@dataclass(frozen=True)
class Factors:
    """What a convolution or an inner product was made of. apply: makes it of others."""

    bottom: Node
    apply: Callable[[Node, Node, Node | None], Node]
    weight: Node
    bias: Node | None
    op: str
    attributes: dict[str, Any]
