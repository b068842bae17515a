"""The C function of a loop: what is done with each element."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce, singledispatchmethod
from typing import Any

import numpy as np

from ristretto_cli.exports.c_constants import Constants, comment, literal
from ristretto_cli.exports.c_helpers import Helpers, Number, wide, widest
from ristretto_cli.exports.c_plan import Group, Plan, bits_of, size_of, type_of
from ristretto_cli.integers.program import (
    Affine,
    Clamp,
    Maximum,
    Multiply,
    Place,
    Requantize,
    Sum,
    Table,
    read_by,
)
from ristretto_cli.ops import AnyArray, Shape


@dataclass
class Scratch:
    """Static arrays that steps share: for each type the largest number of elements that one needs."""

    sizes: dict[str, int]

    def array(self, use: str, kind: str, size: int) -> str:
        """The name of an array."""
        name = f"{use}_{kind.removesuffix('_t')}"
        self.sizes[name] = max(self.sizes.get(name, 0), size)
        return name

    @property
    def bytes(self) -> int:
        return sum(size * bits_of(name) // 8 for name, size in self.sizes.items())


@dataclass(frozen=True)
class Shared:
    """What the functions of a program share. names: identifiers, by place."""

    plan: Plan
    names: dict[str, str]
    prefix: str
    helpers: Helpers
    constants: Constants
    scratch: Scratch
    pack: bool


class Loop:
    """The C function of a group of steps, whose lines are added one by one."""

    def __init__(self, group: Group, shared: Shared) -> None:
        self.group, self.shared = group, shared
        self.helpers = shared.helpers
        self._lines: list[str] = []
        self._depth = 1
        self.reads = {place.name: f"in{i}" for i, place in enumerate(group.reads)}
        self._writes = {place.name: f"out{i}" for i, place in enumerate(group.writes)}
        last = group.all_steps[-1]
        self.name = f"step_{shared.names[last.y.name]}"

    @property
    def arguments(self) -> list[Place]:
        """The places whose addresses it takes, in order."""
        return [*self.group.reads, *self.group.writes]

    def text(self) -> str:
        """The source of the function, after all its lines were added."""
        parameters = [f"const {type_of(place)} *{self.reads[place.name]}" for place in self.group.reads]
        parameters += [f"{type_of(place)} *{self._writes[place.name]}" for place in self.group.writes]
        what = ", ".join(f"{type(step).__name__} {comment(step.y.name)}" for step in self.group.all_steps)
        head = f"/* {what} */\nstatic void {self.name}({', '.join(parameters)})\n{{\n"
        return head + "\n".join(self._lines) + "\n}\n"

    # lines

    def line(self, text: str) -> None:
        """Add a line in the current block."""
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """The lines that are added meanwhile are a block."""
        self.line(f"{head} {{" if head else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    @contextmanager
    def loops(self, ends: Sequence[tuple[str, int | str]]) -> Iterator[None]:
        """Nested loops from 0: variables and ends."""
        if not ends:
            yield
            return
        (name, end), rest = ends[0], ends[1:]
        with self.block(f"for (int32_t {name} = 0; {name} < {end}; ++{name})"), self.loops(rest):
            yield

    # an element, after it was computed

    def element(self, value: Number | None, at: str, channel: str = "", extent: int = 0) -> None:
        """Pass on the element at index `at`; value: of the first step.

        channel: an expression for at / extent, if there is one.
        """
        known: dict[str, Number] = {}

        def declare(name: str, place: Place, number: Number) -> None:
            kind = wide(place.low, place.high)
            narrowed = bits_of(number.kind) > bits_of(kind)
            text = f"({kind})({number.text})" if narrowed else number.text
            self.line(f"const {kind} {name} = {text};")
            known[place.name] = Number(name, kind, place.low, place.high)

        operands = {self.root(x).name for step in self.group.steps for x in read_by(step)}
        for place in self.group.reads:
            if place.name in operands:
                array = self.reads[place.name]
                declare(f"v_{array}", place, Number(f"{array}[{at}]", "int8_t", place.low, place.high))
        if value is not None and self.group.first is not None:
            declare("v", self.group.first.y, value)
        for i, step in enumerate(self.group.steps):
            inner = _extent(step.y.shape)
            row = channel if channel and extent == inner else "0" if inner == size_of(step.y) else f"{at} / {inner}"
            xs = [known[self.root(x).name] for x in read_by(step)]
            declare(f"v{i}", step.y, self._value(step, xs, row))
        for place in self.group.writes:
            self.line(f"{self._writes[place.name]}[{at}] = ({type_of(place)}){known[place.name].text};")
        for each in self.group.all_steps:
            for place in (each.y, *self.shared.plan.reshaped.get(each.y.name, ())):
                self.line(f"TRACE({self.shared.names[place.name]}, {at}, ({type_of(place)}){known[each.y.name].text});")

    def root(self, place: Place) -> Place:
        return self.shared.plan.root(place)

    @singledispatchmethod
    def _value(self, step: Any, xs: list[Number], channel: str) -> Number:
        """An expression for the element of an elementwise step."""
        raise TypeError(f"unknown step {type(step).__name__}")

    @_value.register
    def _(self, step: Requantize, xs: list[Number], channel: str) -> Number:
        return self.helpers.requantized(xs[0], step.requantization)

    @_value.register
    def _(self, step: Clamp, xs: list[Number], channel: str) -> Number:
        return self.helpers.clamped(xs[0], step.y.low, step.y.high)

    @_value.register
    def _(self, step: Sum, xs: list[Number], channel: str) -> Number:
        ranges, low, high = [], 0, 0
        for x, factor in zip(xs, step.factors, strict=True):
            ends = sorted((x.low * factor, x.high * factor))
            low, high = low + ends[0], high + ends[1]
            ranges += [(ends[0], ends[1]), (low, high), (factor, factor)]
        kind = widest(*ranges)
        terms = [times(x, factor, kind) for x, factor in zip(xs, step.factors, strict=True)]
        return Number(" + ".join(terms), kind, low, high)

    @_value.register
    def _(self, step: Maximum, xs: list[Number], channel: str) -> Number:
        terms = list(zip(xs, step.factors, strict=True))
        kind = widest(*((x.low * f, x.high * f) for x, f in terms), *((f, f) for f in step.factors))
        numbers = [Number(times(x, f, kind), kind, x.low * f, x.high * f) for x, f in terms]
        return reduce(self.helpers.larger, numbers)

    @_value.register
    def _(self, step: Multiply, xs: list[Number], channel: str) -> Number:
        low, high, ranges = 1, 1, []
        for x in xs:
            ends = [a * b for a in (low, high) for b in (x.low, x.high)]
            low, high = min(ends), max(ends)
            ranges.append((low, high))
        kind = widest(*ranges, *((x.low, x.high) for x in xs))
        return Number(" * ".join(f"({kind}){x.text}" for x in xs), kind, low, high)

    @_value.register
    def _(self, step: Table, xs: list[Number], channel: str) -> Number:
        name = self.constant(step.y, "table", step.entries)
        index = f"{xs[0].text} - {step.x.low}" if step.x.low > 0 else f"{xs[0].text} + {-step.x.low}"
        if len(step.entries) > 1:
            index = f"({channel}) * {step.entries.shape[1]} + {index}"
        return Number(f"{name}[{index}]", wide(step.y.low, step.y.high), step.y.low, step.y.high)

    @_value.register
    def _(self, step: Affine, xs: list[Number], channel: str) -> Number:
        ranges = [(step.y.low, step.y.high), (step.x.low, step.x.high)]
        for m, o in np.broadcast(step.multipliers, step.offsets):
            ranges += [(int(m) * end, int(m) * end) for end in (step.x.low, step.x.high)]
            ranges += [(int(m), int(m)), (int(o), int(o))]
        kind = widest(*((min(pair), max(pair)) for pair in ranges))
        terms = []
        for what, array in (("multipliers", step.multipliers), ("offsets", step.offsets)):
            if array.size == 1:
                terms.append(literal(int(array.ravel()[0]), kind))
            else:
                terms.append(f"{self.constant(step.y, what, array)}[{channel}]")
        return Number(f"({kind}){xs[0].text} * {terms[0]} + {terms[1]}", kind, step.y.low, step.y.high)

    def constant(self, place: Place, what: str, array: AnyArray, about: str = "") -> str:
        """The name of an array of constants."""
        name = f"{self.shared.prefix}_{self.shared.names[place.name]}_{what}"
        self.shared.constants.add(name, array, about)
        return name

    def elements(self) -> None:
        """Add a loop over the elements of a group without a first step."""
        y = self.group.steps[0].y
        per_channel = any(
            len(each) > 1
            for step in self.group.steps
            for each in (
                [step.entries]
                if isinstance(step, Table)
                else [step.multipliers.ravel(), step.offsets.ravel()]
                if isinstance(step, Affine)
                else []
            )
        )
        if not per_channel:
            with self.loops([("i", size_of(y))]):
                self.element(None, "i")
            return
        extent = _extent(y.shape)
        with self.loops([("c", size_of(y) // extent), ("j", extent)]):
            self.line(f"const int32_t i = c * {extent} + j;")
            self.element(None, "i", "c", extent)

    def input(self, place: Place) -> str:
        """The name of the array of a place."""
        return self.reads[self.root(place).name]


def times(x: Number, factor: int, kind: str) -> str:
    """The C expression of a number times a factor, of this type."""
    return f"({kind}){x.text}" if factor == 1 else f"({kind}){x.text} * {literal(factor, kind)}"


def _extent(shape: Shape) -> int:
    """The elements of a channel."""
    return math.prod(shape[1:])
