"""What is known of values on grids: the ways to have them in an ONNX graph, and what products were made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ristretto_cli.backends.onnx_graph import Node
from ristretto_cli.ops import ConvGeometry, Grid


class Blocks(Enum):
    """How a value comes to have its channels in blocks."""

    NO = "it has not"
    MADE = "a convolution made it"
    KEPT = "a pooling of such a value kept them; what it read was cut off"


@dataclass(frozen=True)
class Stored:
    """A value on a grid, and other ways to have it; each is recorded when it is first asked for.

    whole: float32 multiples of the grid's step. bytes_from: called with a number of steps, the uint8 that count steps
    from there, if the grid's values fit; they saturate at both ends of a byte, and may exceed the grid's highest value
    and, where they count from below it, its lowest one.
    as_bytes: the bytes are computed, and the rest is made from them. unrounded: what is rounded and clipped to give
    `whole`. in_blocks: how that is laid out. rectified: bytes_from of a product, right only where it is not negative,
    and so to be called with 0. parts: the values that this one concatenates, none of which is a concatenation, and the
    axis. value: the value itself, where it is not to come from `whole`. links: how many of these functions may have to
    call each other.
    """

    grid: Grid
    whole: Callable[[], Node]
    bytes_from: Callable[[int], Node] | None = None
    as_bytes: bool = False
    unrounded: Callable[[], Node] | None = None
    in_blocks: Blocks = Blocks.NO
    rectified: Callable[[int], Node] | None = None
    parts: tuple[tuple[Node, ...], int] | None = None
    value: Callable[[], Node] | None = None
    links: int = 0


@dataclass(frozen=True)
class Factors:
    """What a convolution or an inner product was made of. apply: makes it of others.

    geometry: that of a convolution; None for an inner product.
    """

    bottom: Node
    apply: Callable[[Node, Node, Node | None], Node]
    weight: Node
    bias: Node | None
    geometry: ConvGeometry | None = None
