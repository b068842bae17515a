"""How a C program computes an integer program: which steps share a loop, and where in memory places are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ristretto_cli.integers.program import (
    Affine,
    Clamp,
    Maximum,
    Multiply,
    Place,
    Program,
    Requantize,
    Reshape,
    Step,
    Sum,
    Table,
    read_by,
)

Elementwise: TypeAlias = Requantize | Clamp | Sum | Maximum | Multiply | Table | Affine
ELEMENTWISE = (Requantize, Clamp, Sum, Maximum, Multiply, Table, Affine)
_UNARY = (Requantize, Clamp, Table, Affine)


def element_type(low: int, high: int) -> str:
    """The smallest C type for integers from low to high; signed if there is a choice.

    >>> element_type(-128, 127), element_type(0, 255), element_type(0, 2**31)
    ('int8_t', 'uint8_t', 'int64_t')
    """
    for bits in (8, 16, 32):
        if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1):
            return f"int{bits}_t"
        if bits < 32 and low >= 0 and high < 2**bits:
            return f"uint{bits}_t"
    return "int64_t"


def bits_of(kind: str) -> int:
    """The width of such a type."""
    return int("".join(c for c in kind if c.isdigit()))


def type_of(place: Place) -> str:
    """The C type of a place's elements."""
    return element_type(place.low, place.high)


def size_of(place: Place) -> int:
    """The number of elements."""
    return math.prod(place.shape)


@dataclass(eq=False)
class Group:
    """Steps that share a loop over elements: `first` computes each element, `steps` pass it on.

    first: any other step than the elementwise ones, or None: `steps` read what is in memory. All places have the same
    number of elements. reads, writes: the places in memory that the loop reads and writes.
    """

    first: Step | None
    steps: list[Elementwise] = field(default_factory=list)
    reads: list[Place] = field(default_factory=list)
    writes: list[Place] = field(default_factory=list)

    @property
    def all_steps(self) -> list[Step]:
        return [*([] if self.first is None else [self.first]), *self.steps]


@dataclass(frozen=True)
class InArena:
    """A place in the arena for elements of `bits`; offset in elements."""

    bits: int
    offset: int


@dataclass(frozen=True)
class Plan:
    """groups: in the order of computation. roots: for a reshaped place, by name, the place that holds its elements.

    outside: the places that the caller's pointers hold. inside: where the others are that are in memory. arenas: for
    each width, the elements. copies: outputs that are copied at the end, each with its source. reshaped: for a place,
    by name, those that have its elements in other shapes.
    """

    groups: list[Group]
    roots: Mapping[str, Place]
    outside: frozenset[str]
    inside: Mapping[str, InArena]
    arenas: Mapping[int, int]
    copies: list[tuple[Place, Place]]
    reshaped: Mapping[str, list[Place]]

    def root(self, place: Place) -> Place:
        """The place that holds the elements of a place."""
        return self.roots.get(place.name, place)


def make_plan(program: Program) -> Plan:
    """The plan of a program.

    A step that goes element by element joins the loop that computes its operand, so that most sums are never stored.
    """
    roots: dict[str, Place] = {}
    reshaped: dict[str, list[Place]] = {}
    for step in program.steps:
        if isinstance(step, Reshape):
            root = roots[step.y.name] = roots.get(step.x.name, step.x)
            reshaped.setdefault(root.name, []).append(step.y)
    inputs = {each.place.name for each in program.inputs}
    outside = set(inputs)
    copies = []
    for place in program.outputs.values():
        root = roots.get(place.name, place)
        if root.name in outside:
            copies.append((place, root))
        outside.add(root.name)
    grouping = _Grouping(program, roots, outside)
    groups = grouping.groups
    positions = _set_memory(groups, grouping)
    inside, arenas = _laid_out(groups, grouping, positions, outside)
    return Plan(groups, roots, frozenset(outside), inside, arenas, copies, reshaped)


class _Grouping:
    def __init__(self, program: Program, roots: Mapping[str, Place], outside: set[str]) -> None:
        self._roots, self._outside = roots, outside
        self._order = {step.y.name: i for i, step in enumerate(program.steps)}
        self._home: dict[str, Group] = {}
        self.groups: list[Group] = []
        for step in program.steps:
            if not isinstance(step, Reshape):
                self._add(step)
        for step in reversed(program.steps):
            if isinstance(step, _UNARY):
                self._recompute(step)
        self.groups = [group for group in self.groups if group.all_steps]

    def reads(self, step: Step) -> list[Place]:
        """The places, in memory or in the loop, that a step reads."""
        return [self._roots.get(place.name, place) for place in read_by(step)]

    def readers(self, place: Place) -> list[tuple[Group, Step]]:
        """The steps that read a place, in the groups that do not compute it."""
        return [
            (group, step)
            for group in self.groups
            if all(step.y.name != place.name for step in group.all_steps)
            for step in group.all_steps
            if any(x.name == place.name for x in self.reads(step))
        ]

    def in_memory(self, place: Place) -> bool:
        """Whether a place is in memory."""
        return place.name in self._outside or bool(self.readers(place))

    def _add(self, step: Step) -> None:
        homes = [self._home[place.name] for place in self.reads(step) if place.name in self._home]
        if isinstance(step, ELEMENTWISE) and homes:
            group = max(homes, key=self.groups.index)
            group.steps.append(step)
        else:
            group = Group(None, [step]) if isinstance(step, ELEMENTWISE) else Group(step)
            self.groups.append(group)
        self._home[step.y.name] = group

    def _recompute(self, step: Requantize | Clamp | Table | Affine) -> None:
        """Have loops that read a wide place compute it again from the narrower one that it is made of."""
        (x,), y = self.reads(step), step.y
        readers = self.readers(y)
        if y.name in self._outside or not readers:
            return
        if any(not isinstance(reader, ELEMENTWISE) for _, reader in readers):
            return
        wider = bits_of(type_of(y)) - bits_of(type_of(x))
        if wider < 0 or (wider == 0 and not self.in_memory(x)):
            return
        for group in dict.fromkeys(group for group, _ in readers):
            group.steps = sorted([*group.steps, step], key=lambda each: self._order[each.y.name])
        home = self._home[y.name]
        if not any(y.name == read.name for each in home.steps for read in self.reads(each)):
            home.steps.remove(step)


def _set_memory(groups: list[Group], grouping: _Grouping) -> dict[str, tuple[int, int]]:
    """Set what the groups read and write; for each written place the first and the last group that need it."""
    positions: dict[str, tuple[int, int]] = {}
    for i, group in enumerate(groups):
        computed = {step.y.name for step in group.all_steps}
        reads = {x.name: x for step in group.all_steps for x in grouping.reads(step) if x.name not in computed}
        group.reads = list(reads.values())
        group.writes = [step.y for step in group.all_steps if grouping.in_memory(step.y)]
        positions.update({y.name: (i, i) for y in group.writes})
        positions.update({x: (positions[x][0], i) for x in reads if x in positions})
    return positions


@dataclass
class _Buffer:
    bits: int
    size: int
    first: int
    last: int
    offset: int = 0


def _laid_out(
    groups: list[Group], grouping: _Grouping, positions: Mapping[str, tuple[int, int]], outside: set[str]
) -> tuple[dict[str, InArena], dict[int, int]]:
    """Where places are in the arenas, and the arenas' sizes."""
    buffers: dict[str, _Buffer] = {}
    for i, group in enumerate(groups):
        whole = {place.name for place in (() if group.first is None else grouping.reads(group.first))}
        free = [
            buffers[x.name]
            for x in group.reads
            if x.name in buffers and positions[x.name][1] == i and x.name not in whole
        ]
        for y in group.writes:
            if y.name in outside:
                continue
            bits, last = bits_of(type_of(y)), positions[y.name][1]
            # Each element is read just before the element in its place is written.
            same = next((each for each in free if each.bits == bits and each.size == size_of(y)), None)
            if same is not None:
                free.remove(same)
                same.last = last
            buffers[y.name] = same or _Buffer(bits, size_of(y), i, last)
    unique = list({id(each): each for each in buffers.values()}.values())
    arenas: dict[int, int] = {}
    for bits in sorted({each.bits for each in unique}):
        of_width = [each for each in unique if each.bits == bits]
        orders = [
            sorted(of_width, key=lambda each: (-each.size, each.first)),
            sorted(of_width, key=lambda each: (-each.size * (each.last - each.first + 1), each.first)),
            sorted(of_width, key=lambda each: each.first),
        ]
        best = min(orders, key=_placed)
        arenas[bits] = _placed(best)
    return {name: InArena(each.bits, each.offset) for name, each in buffers.items()}, arenas


def _placed(buffers: Iterable[_Buffer]) -> int:
    """Give each buffer the lowest free offset, one after another; the size of the arena."""
    done: list[_Buffer] = []
    for buffer in buffers:
        meanwhile = [each for each in done if each.first <= buffer.last and buffer.first <= each.last]
        buffer.offset = 0
        for each in sorted(meanwhile, key=lambda other: other.offset):
            if buffer.offset + buffer.size <= each.offset:
                break
            buffer.offset = max(buffer.offset, each.offset + each.size)
        done.append(buffer)
    return max((each.offset + each.size for each in done), default=0)
