"""A trimmed net as a program over integers, for one image.

Every value is an array of integers, a `Place`; a step computes places from earlier ones. A program says how a net is
computed without floating point, independent of any language or tool: exporters print it, `interpreter.py` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.ops import AnyArray, ConvGeometry, Ops, PoolGeometry, Shape

# Of the numbers of a place, on any backend: it gets the backend's Ops and a value (N, *shape).
Function: TypeAlias = Callable[[Ops[Any], Any], Any]


@dataclass(frozen=True)
class Place:
    """An array of integers n; each stands for the number n * 2^-frac_bits / divisor.

    name: unique in the program; from the blob's name. shape: of one image, without the batch axis. low, high: bounds
    that hold for every input. divisor: above 1 for averages, which are kept as sums until they are requantized.
    """

    name: str
    shape: Shape
    frac_bits: int
    low: int
    high: int
    divisor: int = 1

    @property
    def signed(self) -> bool:
        """Whether it may have negative values."""
        return self.low < 0

    @property
    def bits(self) -> int:
        """The width that holds all its values: in two's complement if it is signed, otherwise unsigned."""
        return width_of(self.low, self.high)


def width_of(low: int, high: int) -> int:
    """The bits of the integers from low to high, at least 1: with a sign bit if low is negative.

    >>> width_of(-128, 127), width_of(0, 255), width_of(0, 0)
    (8, 8, 1)
    """
    if low < 0:
        return max((-low - 1).bit_length(), max(high, 0).bit_length()) + 1
    return max(high.bit_length(), 1)


@dataclass(frozen=True)
class Requantization:
    """n to saturate(round(n / (divisor * 2^shift))); a negative shift multiplies. The result has frac_bits.

    divisor: of the place that is requantized; 1 for sums of products.
    """

    shift: int
    low: int
    high: int
    divisor: int = 1


@dataclass(frozen=True)
class Input:
    """An input: numbers of `blob`, rounded half to even to the place's format, and saturated.

    layer, bottom: the layer that quantizes it, by its position in the net, and the index of its bottom.
    """

    place: Place
    blob: str
    layer: int
    bottom: int


@dataclass(frozen=True, eq=False)
class Product:
    """Sums of products of x with weights, plus biases: a convolution, a deconvolution or an inner product.

    The sums are shifted left by `up`, then the biases, which are integers of that unit, are added, then the result is
    requantized. low, high: bounds of the sums at any time, in any order of addition. frac_bits: of the sums, after
    `up`. weights_bits, weights_frac_bits, weights_signed: the format of the weights.
    """

    layer: str
    x: Place
    y: Place
    weights: AnyArray
    biases: AnyArray | None
    up: int
    low: int
    high: int
    frac_bits: int
    weights_bits: int
    weights_frac_bits: int
    requantization: Requantization | None

    @property
    def accumulator_bits(self) -> int:
        """The width of an accumulator that never overflows."""
        return width_of(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Convolution(Product):
    """Cross-correlation, as in Caffe. weights (C', C / group, *K), biases (C',); x (C, *S), y (C', *S')."""

    geometry: ConvGeometry = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Deconvolution(Product):
    """The transpose of a convolution. weights (C, C' / group, *K), biases (C',); x (C, *S), y (C', *S')."""

    geometry: ConvGeometry = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class InnerProduct(Product):
    """weights (N, K), biases (N,); x has K elements in all, y (N,) or its elements in another shape."""


@dataclass(frozen=True)
class Requantize:
    """x in another format."""

    x: Place
    y: Place
    requantization: Requantization


@dataclass(frozen=True)
class Clamp:
    """min(max(x, y.low), y.high), as with ReLU and ReLU6."""

    x: Place
    y: Place


@dataclass(frozen=True)
class MaxPool:
    """The largest integer of each window of x (C, H, W); padding never wins."""

    x: Place
    y: Place
    geometry: PoolGeometry


@dataclass(frozen=True, eq=False)
class SumPool:
    """The sum of each window of x (C, H, W), times its factor; the mean is that sum divided by y.divisor.

    factors: (H', W'), all 1 unless windows have different sizes.
    """

    x: Place
    y: Place
    geometry: PoolGeometry
    factors: AnyArray


@dataclass(frozen=True)
class Sum:
    """The sum of xs, each times its factor."""

    xs: tuple[Place, ...]
    y: Place
    factors: tuple[int, ...]


@dataclass(frozen=True)
class Maximum:
    """The maximum of xs, each times its factor."""

    xs: tuple[Place, ...]
    y: Place
    factors: tuple[int, ...]


@dataclass(frozen=True)
class Multiply:
    """The product of xs, element by element."""

    xs: tuple[Place, ...]
    y: Place


@dataclass(frozen=True)
class Concat:
    """xs, each times its factor, joined along an axis (0: channels)."""

    xs: tuple[Place, ...]
    y: Place
    factors: tuple[int, ...]
    axis: int


@dataclass(frozen=True, eq=False)
class Table:
    """For each element its entry in a table. entries (C or 1, x.high - x.low + 1): entry 0 is that of x.low.

    With C rows, each channel (axis 0) has its own. requantization: the bounds of the format that the entries were
    rounded to; None if no layer quantizes them. function: the float32 function that they were computed by; None in a
    program that was read from a file.
    """

    layers: tuple[str, ...]
    x: Place
    y: Place
    entries: AnyArray
    requantization: Requantization | None = None
    function: Function | None = None

    @property
    def quantizes(self) -> bool:
        """Whether the entries are in the format of the layer that reads them."""
        return self.requantization is not None


@dataclass(frozen=True, eq=False)
class Affine:
    """x * multipliers + offsets, with one integer of each for all channels (axis 0), (1,), or for each, (C,).

    function: the float32 function that they stand for; None in a program that was read from a file.
    """

    layers: tuple[str, ...]
    x: Place
    y: Place
    multipliers: AnyArray
    offsets: AnyArray
    function: Function | None = None


@dataclass(frozen=True, eq=False)
class Move:
    """Elements of x at other positions: element i of y, flattened, is element indices[i] of x; where that is -1, fill.

    indices: int32, of y's shape.
    """

    x: Place
    y: Place
    indices: AnyArray
    fill: int = 0


@dataclass(frozen=True)
class Reshape:
    """The elements of x in the shape of y, in the same order."""

    x: Place
    y: Place


Step: TypeAlias = (
    Convolution
    | Deconvolution
    | InnerProduct
    | Requantize
    | Clamp
    | MaxPool
    | SumPool
    | Sum
    | Maximum
    | Multiply
    | Concat
    | Table
    | Affine
    | Move
    | Reshape
)


@dataclass(frozen=True)
class HostLayer:
    """A layer that is computed in floating point after the program, and why."""

    name: str
    type: str
    reason: str


@dataclass(frozen=True)
class Program:
    """The steps, in order. outputs: the places that the host reads, by the names of their blobs.

    blobs: for each key of the net's blobs that is a place, the place; the keys are those of `ristretto forward`. host:
    the layers after the program. rounding: of all requantizations; inputs, weights and tables are rounded half to even.
    """

    name: str
    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    outputs: Mapping[str, Place]
    blobs: Mapping[str, Place]
    host: tuple[HostLayer, ...]
    rounding: ShiftRounding

    @property
    def places(self) -> tuple[Place, ...]:
        """All places, in the order in which they are computed."""
        return (*(each.place for each in self.inputs), *(step.y for step in self.steps))


def read_by(step: Step) -> tuple[Place, ...]:
    """The places that a step reads."""
    return step.xs if isinstance(step, (Sum, Maximum, Multiply, Concat)) else (step.x,)


def approximate(program: Program) -> frozenset[str]:
    """The names of places whose numbers differ from the net's by less than their unit: results of Affine steps and of
    tables with more fraction bits than a layer's format, means, and what is computed of them before it is requantized.
    """
    found: set[str] = set()
    for step in program.steps:
        if isinstance(step, Requantize) or (isinstance(step, Product) and step.requantization is not None):
            continue
        is_rounded = step.y.divisor != 1 or isinstance(step, Affine) or (isinstance(step, Table) and not step.quantizes)
        if is_rounded or any(place.name in found for place in read_by(step)):
            found.add(step.y.name)
    return frozenset(found)
