"""C programs: compiled, run, and compared with the integer programs that they were made of, value by value."""

from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.c import CExporter, write_program
from ristretto_cli.exports.c_constants import Packed, comment, literal, packed, packing_of, texts
from ristretto_cli.exports.c_files import dtype_of
from ristretto_cli.exports.c_plan import element_type, make_plan
from ristretto_cli.exports.checks import Comparison, NotChecked
from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
from ristretto_cli.integers import arithmetic
from ristretto_cli.integers.interpreter import Interpreter
from ristretto_cli.integers.program import (
    Affine,
    Clamp,
    Concat,
    Convolution,
    Deconvolution,
    InnerProduct,
    Input,
    Maximum,
    MaxPool,
    Move,
    Multiply,
    Place,
    Program,
    Requantization,
    Requantize,
    Reshape,
    Step,
    Sum,
    SumPool,
    Table,
)
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.integers.values import Sums
from ristretto_cli.ops import AnyArray, ConvGeometry, Grid, PoolGeometry, Shape
from ristretto_cli.scoring.user_data import UserData

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror"]


# --- random programs


@dataclass
class Maker:
    """Makes programs of random steps, with bounds that hold."""

    rng: np.random.Generator
    rounding: ShiftRounding
    places: list[Place] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def place(self, shape: Shape, low: int, high: int, divisor: int = 1) -> Place:
        place = Place(f"p{len(self.places)}/{'x' * self.integer(0, 2)}", shape, self.integer(-4, 9), low, high, divisor)
        self.places.append(place)
        return place

    def add(self, step: Step) -> Place:
        self.steps.append(step)
        return step.y

    def any_place(self, most_bits: int = 14, axes: int | None = None) -> Place:
        fits = [p for p in self.places if axes is None or len(p.shape) == axes]
        narrow = [p for p in fits if p.bits <= most_bits]
        if narrow:
            return narrow[self.integer(0, len(narrow) - 1)]
        return self.requantize(fits[self.integer(0, len(fits) - 1)], bits=self.integer(2, min(9, most_bits)))

    def requantization(self, place_low: int, place_high: int, bits: int, divisor: int = 1) -> Requantization:
        width = max(-place_low, place_high, 1).bit_length()
        shift = self.integer(width - bits - 2, width - bits + 3)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.integer(0, 2) else (0, 2**bits - 1)
        return Requantization(shift, low, high, divisor)

    def bounds(self, low: int, high: int, to: Requantization) -> tuple[int, int]:
        first, last = (arithmetic.requantized(end, to, self.rounding) for end in (low, high))
        return first, last

    def requantize(self, x: Place, bits: int = 0) -> Place:
        to = self.requantization(x.low, x.high, bits or self.integer(1, 17), x.divisor)
        return self.add(Requantize(x, self.place(x.shape, *self.bounds(x.low, x.high, to)), to))

    def clamp(self) -> Place:
        x = self.any_place()
        low, high = sorted((self.integer(x.low, x.high), self.integer(x.low, x.high)))
        return self.add(Clamp(x, self.place(x.shape, low, high, x.divisor)))

    def finished(self, kind: type, x: Place, weights: AnyArray, outputs: int, shape: Shape, **more: Any) -> Place:
        biases = self.rng.integers(-300, 300, outputs) if self.integer(0, 3) else None
        up = self.integer(0, 2) * self.integer(0, 3)
        geometry = more.get("geometry")
        sums = Sums((1, *shape), "l", kind, x, weights, Grid(0, -1, 1), biases, None, geometry)
        low, high = arithmetic.bounds_of_sums(sums, biases, up)
        to = self.requantization(low, high, self.integer(2, 16)) if self.integer(0, 3) else None
        y = self.place(shape, *((low, high) if to is None else self.bounds(low, high, to)))
        bits = int(np.abs(weights).max()).bit_length() + 1
        return self.add(kind(f"l{len(self.steps)}", x, y, weights, biases, up, low, high, 3, bits, 2, to, **more))

    def weights(self, *shape: int) -> AnyArray:
        bits = [1, 2, 3, 4, 6, 8, 16][self.integer(0, 6)]
        return self.rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)

    def per_axis(self, axes: int, low: int, high: int) -> Shape:
        return tuple(self.integer(low, high) for _ in range(axes))

    def convolution(self) -> Place | None:
        x = self.any_place(17)
        axes = len(x.shape) - 1
        if axes < 1 or x.divisor > 1:
            return None
        group = next(g for g in (x.shape[0], 2, 1) if x.shape[0] % g == 0 and (g == 1 or self.integer(0, 1)))
        kernel = self.per_axis(axes, 1, 3)
        geometry = ConvGeometry(self.per_axis(axes, 1, 3), self.per_axis(axes, 0, 2), self.per_axis(axes, 1, 2), group)
        outputs = group * self.integer(1, 3)
        transposed = bool(self.integer(0, 1))
        extent = (geometry.deconvolved if transposed else geometry.convolved)(x.shape[1:], kernel)
        if min(extent) < 1 or math.prod(extent) > 400:
            return None
        weights = self.weights(
            *((x.shape[0], outputs // group) if transposed else (outputs, x.shape[0] // group)), *kernel
        )
        kind = Deconvolution if transposed else Convolution
        return self.finished(kind, x, weights, outputs, (outputs, *extent), geometry=geometry)

    def inner_product(self) -> Place | None:
        x = self.any_place(20)
        if x.divisor > 1:
            return None
        outputs = self.integer(1, 6)
        return self.finished(InnerProduct, x, self.weights(outputs, math.prod(x.shape)), outputs, (outputs,))

    def pool(self) -> Place | None:
        x = self.any_place(axes=3)
        kernel = self.per_axis(2, 1, 3)
        pad = tuple(self.integer(0, k - 1) for k in kernel)
        geometry = PoolGeometry(kernel, self.per_axis(2, 1, 3), pad, bool(self.integer(0, 1)))
        extent = geometry.pooled(x.shape[1:])
        if min(extent) < 1 or (arithmetic.window_sizes(geometry, x.shape[1:], padding=False) <= 0).any():
            return None
        shape = (x.shape[0], *extent)
        if self.integer(0, 1):
            return self.add(MaxPool(x, self.place(shape, x.low, x.high, x.divisor), geometry))
        factors = self.rng.integers(1, 5, extent) if self.integer(0, 1) else np.ones(extent, np.int64)
        most = math.prod(kernel) * int(factors.max())
        y = self.place(shape, min(x.low, 0) * most, max(x.high, 0) * most, x.divisor * self.integer(1, 9))
        return self.add(SumPool(x, y, geometry, factors))

    def many(self) -> Place:
        x = self.any_place()
        others = [p for p in self.places if p.shape == x.shape and p.bits <= 20]
        xs = (x, *(others[self.integer(0, len(others) - 1)] for _ in range(self.integer(0, 2))))
        factors = tuple(self.integer(1, 40) for _ in xs)
        kind = self.integer(0, 3)
        if kind == 0 and len(xs) > 1:
            ends = {a * b for a in (xs[0].low, xs[0].high) for b in (xs[1].low, xs[1].high)}
            return self.add(Multiply(xs[:2], self.place(x.shape, min(ends), max(ends))))
        low = [p.low * f for p, f in zip(xs, factors, strict=True)]
        high = [p.high * f for p, f in zip(xs, factors, strict=True)]
        if kind == 1:
            return self.add(Maximum(xs, self.place(x.shape, max(low), max(high)), factors))
        if kind == 2 and x.shape:
            axis = self.integer(0, len(x.shape) - 1)
            shape = (*x.shape[:axis], x.shape[axis] * len(xs), *x.shape[axis + 1 :])
            return self.add(Concat(xs, self.place(shape, min(low), max(high)), factors, axis))
        signed = tuple(f * (-1) ** self.integer(0, 1) for f in factors)
        ends = [sorted((p.low * f, p.high * f)) for p, f in zip(xs, signed, strict=True)]
        y = self.place(x.shape, sum(end[0] for end in ends), sum(end[1] for end in ends))
        return self.add(Sum(xs, y, signed))

    def channels(self) -> Place:
        x = self.any_place(9)
        rows = x.shape[0] if x.shape and self.integer(0, 2) else 1
        if self.integer(0, 1):
            most = 2 ** self.integer(1, 30)
            entries = self.rng.integers(-most, most, (rows, x.high - x.low + 1))
            y = self.place(x.shape, int(entries.min()), int(entries.max()))
            return self.add(Table(("t",), x, y, entries))
        most = 2 ** self.integer(1, 40)
        multipliers, offsets = self.rng.integers(-most, most, rows), self.rng.integers(-most, most, 1)
        ends = [int(m) * end + int(o) for m, o in np.broadcast(multipliers, offsets) for end in (x.low, x.high)]
        return self.add(Affine(("a",), x, self.place(x.shape, min(ends), max(ends)), multipliers, offsets))

    def move(self) -> Place:
        x = self.any_place()
        indices = np.arange(math.prod(x.shape), dtype=np.int32).reshape(x.shape)
        kind = self.integer(0, 3)
        if kind == 0:
            indices = indices.transpose(*self.rng.permutation(indices.ndim).tolist())
        elif kind == 1:
            indices = np.pad(indices, [(self.integer(0, 2), self.integer(0, 2)) for _ in x.shape], constant_values=-1)
        elif kind == 2:
            indices = indices[tuple(slice(self.integer(0, n - 1), None) for n in x.shape)]
        else:
            indices = self.rng.integers(-1, indices.size, self.per_axis(2, 1, 5)).astype(np.int32)
        fill = self.integer(x.low, x.high)
        y = self.place(indices.shape, min(x.low, fill), max(x.high, fill), x.divisor)
        return self.add(Move(x, y, np.ascontiguousarray(indices), fill))

    def reshape(self) -> Place:
        x = self.any_place(60)
        shapes = [(math.prod(x.shape),), (1, *x.shape), (*x.shape, 1), x.shape[::-1]]
        y = replace(x, name=f"p{len(self.places)}", shape=shapes[self.integer(0, 3)])
        self.places.append(y)
        return self.add(Reshape(x, y))

    def program(self, count: int) -> Program:
        for i in range(2):
            bits = self.integer(1, 16)
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.integer(0, 1) else (0, 2**bits - 1)
            self.place((self.integer(1, 4), self.integer(3, 7), self.integer(3, 7)), low, high)
            if i == 0 and self.integer(0, 1):
                break
        inputs = tuple(Input(place, "data", 0, i) for i, place in enumerate(self.places))
        makers = [
            self.clamp, self.convolution, self.convolution, self.inner_product, self.pool, self.many, self.channels,
            self.move, self.reshape, lambda: self.requantize(self.places[self.integer(0, len(self.places) - 1)]),
        ]  # fmt: skip
        while len(self.steps) < count:
            makers[self.integer(0, len(makers) - 1)]()
        read = {place.name for step in self.steps for place in getattr(step, "xs", None) or (step.x,)}
        ends = [place for place in self.places if place.name not in read or not self.integer(0, 7)]
        outputs = {f"o {place.name}": place for place in ends}
        blobs = {place.name: place for place in self.places}
        return Program("random net", inputs, tuple(self.steps), outputs, blobs, (), self.rounding)


def random_program(seed: int, rounding: ShiftRounding = ShiftRounding.HALF_EVEN, count: int = 24) -> Program:
    return Maker(np.random.default_rng(seed), rounding).program(count)


def random_inputs(program: Program, count: int, seed: int = 0) -> dict[str, AnyArray]:
    rng = np.random.default_rng(seed)
    found = {}
    for each in program.inputs:
        low, high = each.place.low, each.place.high
        integers = rng.integers(low, high, (count, *each.place.shape), endpoint=True)
        ends = rng.choice([low, high], integers.shape)
        found[each.place.name] = np.where(rng.random(integers.shape) < 0.2, ends, integers)
    return found


def compare(path: Path, program: Program, given: dict[str, AnyArray]) -> Comparison:
    expected = Interpreter(program, keep=lambda place: True).run_integers(given)
    expected.update(given)
    found = CExporter().run_written(path, program, given)
    assert expected.keys() == found.keys()
    comparison = Comparison(program)
    comparison.add(expected, found)
    return comparison


def run(program: str, path: Path, given: dict[str, AnyArray], of: Program) -> dict[str, AnyArray]:
    """The outputs of a test program that keeps no other blobs."""
    count = len(next(iter(given.values())))
    images = [given[each.place.name][i].astype(dtype_of(each.place)) for i in range(count) for each in of.inputs]
    (path / "in").write_bytes(b"".join(image.tobytes() for image in images))
    done = subprocess.run([program, "in", "out"], cwd=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    rows = np.fromfile(path / "out", np.uint8).reshape(count, -1)
    found, start = {}, 0
    for name, place in of.outputs.items():
        end = start + math.prod(place.shape) * dtype_of(place).itemsize
        found[name] = np.ascontiguousarray(rows[:, start:end]).view(dtype_of(place)).reshape(count, *place.shape)
        start = end
    assert start == rows.shape[1]
    return found


def compiled(path: Path, *flags: str, to: str = "built") -> str:
    program = str(path / to)
    sources = [str(path / name) for name in ("net.c", "weights.c", "test.c")]
    done = subprocess.run(["gcc", *STRICT, *flags, *sources, "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    return program


@needs_gcc
@pytest.mark.parametrize("seed", range(6))
def test_random_programs_compute_the_same_integers(tmp_path: Path, seed: int) -> None:
    program = random_program(seed, list(ShiftRounding)[seed % 4])
    given = random_inputs(program, 4)
    write_program(program, tmp_path, pixels={}, vectors={}, pack=seed >= 3)
    comparison = compare(tmp_path, program, given)
    assert (comparison.differing, comparison.first_difference) == (0, None)
    assert len(comparison.places) == len(program.places)


@needs_gcc
@pytest.mark.parametrize("seed", range(6, 8))
def test_programs_compile_without_warnings_and_run_without_undefined_behaviour(tmp_path: Path, seed: int) -> None:
    program = random_program(seed, list(ShiftRounding)[seed % 4])
    given = random_inputs(program, 3)
    write_program(program, tmp_path, pixels={}, vectors={}, pack=seed == 7)
    compiled(tmp_path, "-O1", "-DRANDOM_NET_TRACE")
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # Outputs are compared without the arrays that keep all blobs: it is what users run.
    found = run(compiled(tmp_path, "-O1", *sanitizers), tmp_path, given, program)
    expected = Interpreter(program).run_integers(given)
    expected.update(given)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: expected[place.name].tolist() for name, place in program.outputs.items()
    }


def test_the_random_programs_have_steps_of_every_type() -> None:
    types = {type(step) for seed in range(8) for step in random_program(seed).steps}
    assert types == set(Step.__args__)  # type: ignore[attr-defined]


# --- one step at a time


def one_step(step: Step, x: Place, rounding: ShiftRounding = ShiftRounding.HALF_EVEN) -> Program:
    return Program("n", (Input(x, "x", 0, 0),), (step,), {"y": step.y}, {"x": x, "y": step.y}, (), rounding)


@needs_gcc
@pytest.mark.parametrize("rounding", ShiftRounding)
def test_requantization_rounds_as_the_program_does(tmp_path: Path, rounding: ShiftRounding) -> None:
    low, high = -(2**20), 2**20 - 1
    xs = [Place(f"x{divisor}", (2**13,), 0, low, high, divisor) for divisor in (1, 3, 7)]
    steps: list[Step] = []
    for x in xs:
        for shift in (-60, -3, 0, 1, 5, 40):
            to = Requantization(shift, -128, 127, x.divisor)
            steps.append(Requantize(x, Place(f"y{len(steps)}", x.shape, 0, -128, 127), to))
    outputs = {step.y.name: step.y for step in steps}
    program = Program("n", tuple(Input(x, "x", 0, 0) for x in xs), tuple(steps), outputs, outputs, (), rounding)
    write_program(program, tmp_path, pixels={}, vectors={})
    around = np.arange(-(2**12), 2**12)
    far = np.linspace(low, high, 2**13).astype(np.int64)
    assert compare(tmp_path, program, {x.name: np.stack([around, far]) for x in xs}).differing == 0


@needs_gcc
@pytest.mark.parametrize("rounding", ShiftRounding)
def test_the_widest_sums_do_not_overflow(tmp_path: Path, rounding: ShiftRounding) -> None:
    most = 2**60
    x = Place("x", (4,), 0, -most, most)
    to = Requantization(50, -(2**15), 2**15 - 1)
    program = one_step(Requantize(x, Place("y", x.shape, 0, -1024, 1024), to), x, rounding)
    write_program(program, tmp_path, pixels={}, vectors={})
    given = np.array([[most, -most, most - 2**49, -(2**49)]])
    assert compare(tmp_path, program, {"x": given}).differing == 0
    flags = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    run(compiled(tmp_path, *flags), tmp_path, {"x": given}, program)


@needs_gcc
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_and_deconvolutions_of_any_number_of_axes(tmp_path: Path, axes: int) -> None:
    rng = np.random.default_rng(axes)
    x = Place("x", (4, *(5, 4, 3)[:axes]), 0, 0, 255)
    geometry = ConvGeometry((2, 1, 2)[:axes], (1, 2, 0)[:axes], (1, 2, 1)[:axes], group=2)
    kernel = (3, 2, 2)[:axes]
    taps, in_bytes = math.prod(kernel), 0
    steps: list[Step] = []
    for kind in (Convolution, Deconvolution):
        for bits in (1, 2, 4, 8):
            transposed = kind is Deconvolution
            extent = (geometry.deconvolved if transposed else geometry.convolved)(x.shape[1:], kernel)
            weights = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), ((4, 3) if transposed else (6, 2)) + kernel)
            weights.flat[0] = -(2 ** (bits - 1))
            sums = Sums((1,), "l", kind, x, weights, Grid(0, -1, 1), None, None, geometry)
            low, high = arithmetic.bounds_of_sums(sums, None, 0)
            y = Place(f"{kind.__name__}{bits}", (6, *extent), 0, low, high)
            steps.append(kind("l", x, y, weights, None, 0, low, high, 0, bits, 0, None, geometry=geometry))
            in_bytes += 6 * -(-2 * taps * bits // 8)
    blobs = {step.y.name: step.y for step in steps}
    program = Program("n", (Input(x, "x", 0, 0),), tuple(steps), blobs, blobs, (), ShiftRounding.FLOOR)
    assert write_program(program, tmp_path, pixels={}, vectors={}, pack=True).constants == in_bytes
    assert compare(tmp_path, program, random_inputs(program, 3)).differing == 0


@needs_gcc
def test_weights_larger_than_a_cache_are_read_once_for_several_positions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = Place("x", (64, 7, 7), 0, -128, 127)
    weights = rng.integers(-128, 128, (40, 64, 3, 3)).astype(np.int8)
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1))
    low, high = arithmetic.bounds_of_sums(
        Sums((1,), "l", Convolution, x, weights, Grid(0, -1, 1), None, None, geometry), None, 0
    )
    y = Place("y", (40, 7, 7), 0, -128, 127)
    step = Convolution(
        "l", x, y, weights, None, 0, low, high, 0, 8, 0, Requantization(12, -128, 127), geometry=geometry
    )
    program = one_step(step, x)
    write_program(program, tmp_path, pixels={}, vectors={})
    assert "block" in (tmp_path / "net.c").read_text()
    assert compare(tmp_path, program, random_inputs(program, 2)).differing == 0


# --- the plan


def test_what_is_needed_at_different_times_shares_memory() -> None:
    places = [Place(f"p{i}", (100,), 0, -128, 127) for i in range(5)]
    moves = [Move(x, y, np.arange(100, dtype=np.int32)[::-1]) for x, y in pairwise(places)]
    blobs = {"y": places[-1]}
    program = Program("n", (Input(places[0], "x", 0, 0),), tuple(moves), blobs, blobs, (), ShiftRounding.HALF_EVEN)
    plan = make_plan(program)
    assert dict(plan.arenas) == {8: 200}
    assert [plan.inside[f"p{i}"].offset for i in (1, 2, 3)] in ([0, 100, 0], [100, 0, 100])


def test_a_step_by_element_overwrites_what_nobody_reads_later() -> None:
    a, b, c, d, e = (Place(name, (10,), 0, -128, 127) for name in "abcde")
    reverse = np.arange(10, dtype=np.int32)[::-1]
    steps = (Move(a, b, reverse), Move(b, c, reverse), Sum((b, c), d, (1, 1)), Move(d, e, reverse))
    program = Program("n", (Input(a, "a", 0, 0),), steps, {"e": e}, {}, (), ShiftRounding.HALF_EVEN)
    plan = make_plan(program)
    # The sum is computed in the loop of its later operand, into the memory of the earlier one.
    assert [len(group.all_steps) for group in plan.groups] == [1, 2, 1]
    assert set(plan.inside) == {"b", "d"}
    # The first operand is also read whole by the move: it must not be overwritten.
    assert plan.inside["b"] != plan.inside["d"]


def test_wide_sums_are_never_stored_if_only_their_requantization_is_read() -> None:
    x = Place("x", (2, 3), 0, -128, 127)
    wide = Place("wide", (2, 3), 0, -(2**30), 2**30)
    narrow = Place("narrow", (2, 3), 0, -128, 127)
    table = Table(("t",), x, wide, np.full((1, 256), 2**30))
    steps = (table, Requantize(wide, narrow, Requantization(20, -128, 127)))
    program = Program("n", (Input(x, "x", 0, 0),), steps, {"y": narrow}, {}, (), ShiftRounding.HALF_EVEN)
    plan = make_plan(program)
    assert (len(plan.groups), dict(plan.inside), dict(plan.arenas)) == (1, {}, {})


# --- constants


@pytest.mark.parametrize(("bits", "per_byte"), [(1, 8), (2, 4), (3, 2), (4, 2)])
def test_narrow_weights_share_bytes(bits: int, per_byte: int) -> None:
    rows = np.random.default_rng(bits).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (3, 21))
    rows[0, 0] = -(2 ** (bits - 1))
    to = packing_of(rows)
    assert to == Packed(8 // per_byte, -(-21 // per_byte))
    bytes_ = packed(rows, to).astype(np.int64)
    half = 2 ** (to.bits - 1)
    planes = [(bytes_ >> (j * to.bits)) % (2 * half) for j in range(per_byte)]
    found = np.concatenate([np.where(plane >= half, plane - 2 * half, plane) for plane in planes], 1)
    assert found[:, :21].tolist() == rows.tolist()


def test_weights_of_more_than_four_bits_do_not_share_bytes() -> None:
    assert packing_of(np.array([[8]])) is None
    assert packing_of(np.array([[-9]])) is None


@pytest.mark.parametrize("count", [1, 5, 27, 28, 1000])
@pytest.mark.parametrize("most", [1, 127, 2**31, 2**40])
def test_constants_are_printed_as_they_are(count: int, most: int) -> None:
    array = np.random.default_rng(count).integers(-most, most, count)
    array[0] = -most
    kind = element_type(-most, most - 1)
    text = b"".join(texts(array, kind)).decode()
    words = [word.strip() for word in text.split(",") if word.strip()]
    assert words == [literal(int(n), kind) for n in array]
    assert max(map(len, text.splitlines())) <= 120


def test_names_in_comments_cannot_end_them() -> None:
    assert comment("a */ b\\\n??/ \u00e9") == "a _/ b____/ _"


# --- nets


NET = """
    name: "%s"
    layer { name: "d" type: "Data" top: "data" top: "label" transform_param { scale: 0.00390625 mean_value: 3 }
            data_param { source: "db" backend: LMDB batch_size: 4 } }
    layer { name: "3x3" type: "ConvolutionRistretto" bottom: "data" top: "int"
            convolution_param { num_output: 3 kernel_size: 3 pad: 1 }
            quantization_param { bw_params: 4 fl_params: 3 bw_layer_in: 8 fl_layer_in: 7
                                 bw_layer_out: 8 fl_layer_out: 5 } }
    layer { name: "../x */ //" type: "ReLU" bottom: "int" top: "int" }
    layer { name: "Int" type: "Pooling" bottom: "int" top: "p"
            pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "for" type: "FcRistretto" bottom: "p" top: "while" inner_product_param { num_output: 5 }
            quantization_param { bw_params: 8 fl_params: 7 bw_layer_in: 8 fl_layer_in: 5
                                 bw_layer_out: 8 fl_layer_out: 4 } }
"""


def digits(workshop: Any, name: str = "a net") -> tuple[str, str]:
    rng = np.random.default_rng(3)
    workshop.database("db", rng.integers(0, 256, (8, 2, 7, 7)).astype(np.uint8))
    weights = {
        "3x3": [rng.normal(0, 0.5, (3, 2, 3, 3)), rng.normal(0, 0.5, 3)],
        "for": [rng.normal(0, 0.3, (5, 48)), rng.normal(0, 0.3, 5)],
    }
    return workshop.net(NET % name), workshop.weights(weights)


def request(model: str, weights: str, **settings: Any) -> ExportRequest:
    return ExportRequest(model, weights, "out", TEST, **settings)


@needs_gcc
def test_an_export_is_checked_and_tests_itself(workshop: Any) -> None:
    lines = EXPORTS.get("c").write(request(*digits(workshop), vectors=3, check=8, pack=True))
    assert "checked: 8 images, 3,944 values of 6 blobs: 0 differ" in lines
    test = compiled(Path("out"), "-O2", to="../built")
    done = subprocess.run([test], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3 images: 0 values differ\n")


BRANCHES = """
    name: "branches"
    layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 dim: 9 dim: 8 } } }
    layer { name: "dilated" type: "ConvolutionRistretto" bottom: "data" top: "dilated"
            convolution_param { num_output: 6 kernel_size: 3 pad: 2 dilation: 2 stride: 2 group: 2 }
            quantization_param { bw_params: 6 fl_params: 4 bw_layer_in: 8 fl_layer_in: 5
                                 bw_layer_out: 7 fl_layer_out: 3 } }
    layer { name: "slice" type: "Slice" bottom: "dilated" top: "a" top: "b" slice_param { slice_point: 2 } }
    layer { name: "up" type: "DeconvolutionRistretto" bottom: "a" top: "up"
            convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 }
            quantization_param { bw_params: 4 fl_params: 2 bw_layer_in: 6 fl_layer_in: -1
                                 bw_layer_out: 9 fl_layer_out: -2 } }
    layer { name: "depthwise" type: "ConvolutionRistretto" bottom: "b" top: "depthwise"
            convolution_param { num_output: 4 kernel_h: 1 kernel_w: 3 pad_w: 1 group: 4 }
            quantization_param { bw_params: 16 fl_params: 12 bw_layer_in: 16 fl_layer_in: 10
                                 bw_layer_out: 5 fl_layer_out: 1 } }
    layer { name: "mean" type: "Pooling" bottom: "up" top: "mean"
            pooling_param { pool: AVE kernel_size: 3 pad: 1 stride: 2 } }
    layer { name: "max" type: "Pooling" bottom: "depthwise" top: "max"
            pooling_param { pool: MAX kernel_size: 2 stride: 1 pad: 1 } }
    layer { name: "largest" type: "Pooling" bottom: "max" top: "largest"
            pooling_param { pool: MAX kernel_size: 2 stride: 1 } }
    layer { name: "sum" type: "Eltwise" bottom: "largest" bottom: "b" top: "sum"
            eltwise_param { coeff: 2 coeff: -0.5 } }
    layer { name: "joined" type: "Concat" bottom: "mean" bottom: "sum" bottom: "b" top: "joined" }
    layer { name: "relu6" type: "ReLU" bottom: "joined" top: "joined" }
    layer { name: "fc" type: "FcRistretto" bottom: "joined" top: "fc" inner_product_param { num_output: 3 }
            quantization_param { bw_params: 2 fl_params: 1 bw_layer_in: 8 fl_layer_in: 2
                                 bw_layer_out: 12 fl_layer_out: 3 } }
"""


@needs_gcc
@pytest.mark.parametrize("pack", [False, True])
def test_a_net_with_branches_of_different_formats(workshop: Any, pack: bool) -> None:
    rng = np.random.default_rng(1)
    weights = {
        "dilated": [rng.normal(0, 1, (6, 2, 3, 3)), rng.normal(0, 1, 6)],
        "up": [rng.normal(0, 1, (2, 4, 3, 3)), rng.normal(0, 3, 4)],
        "depthwise": [rng.normal(0, 1, (4, 1, 1, 3)), rng.normal(0, 1, 4)],
        "fc": [rng.normal(0, 1, (3, 240)), rng.normal(0, 1, 3)],
    }
    data = UserData(arrays={"data": rng.normal(0, 3, (6, 4, 9, 8)).astype(np.float32)})
    model, file = workshop.net(BRANCHES), workshop.weights(weights)
    lines = EXPORTS.get("c").write(request(model, file, check=6, pack=pack, data=data))
    assert ": 0 differ" in lines
    compiled(Path("out"), "-DBRANCHES_TRACE", to="../built")


@needs_gcc
def test_the_test_program_finds_a_wrong_value(workshop: Any) -> None:
    EXPORTS.get("c").write(request(*digits(workshop), vectors=2))
    text = Path("out/net.c").read_text()
    Path("out/net.c").write_text(text.replace("sum + a_net_for_biases[o]", "sum + a_net_for_biases[o] + 512"))
    done = subprocess.run([compiled(Path("out"), to="../built")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "image 0: out_while[0] is" in done.stdout


@needs_gcc
def test_a_wrong_program_is_noticed(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = CExporter.print

    def spoiled(self: CExporter, content: Any, path: Path) -> str:
        line = original(self, content, path)
        text = (path / "net.c").read_text()
        (path / "net.c").write_text(text.replace("half_even_32(sum", "half_even_32(1 + sum"))
        return line

    monkeypatch.setattr(CExporter, "print", spoiled)
    with pytest.raises(RistrettoError, match=r"checked, and it is wrong: .* differ, first in 3x3"):
        EXPORTS.get("c").write(request(*digits(workshop), check=2))


@needs_gcc
def test_pixels_become_the_integers_of_the_input(workshop: Any) -> None:
    EXPORTS.get("c").write(request(*digits(workshop), vectors=2))
    pixels = np.random.default_rng(3).integers(0, 256, (8, 2, 7, 7)).astype(np.uint8)
    Path("pixels").write_bytes(pixels.tobytes())
    test = compiled(Path("out"), to="../built")
    assert subprocess.run([test, "-p", "pixels", "scores"]).returncode == 0
    found = np.fromfile("scores", np.int8).reshape(8, 5)
    lines = Path("out/vectors.h").read_text().partition("vectors_out_while")[2]
    numbers = [
        int(word) for word in lines.replace("{", ",").replace("}", ",").split(",") if word.strip(" \n-").isdigit()
    ]
    assert found[:2].ravel().tolist() == numbers
    assert len(np.unique(found)) > 5


@needs_gcc
@pytest.mark.parametrize("name", ["int", "3x3", "", "../a */ b", "INT8", "\u00e9"])
def test_names_of_nets_are_made_identifiers(workshop: Any, name: str) -> None:
    EXPORTS.get("c").write(request(*digits(workshop, name), vectors=1))
    compiled(Path("out"), to="../built")


@needs_gcc
def test_files_that_the_test_program_cannot_read_are_errors(workshop: Any) -> None:
    EXPORTS.get("c").write(request(*digits(workshop)))
    test = compiled(Path("out"), to="../built")
    Path("half").write_bytes(b"x" * 50)
    for arguments, message in [
        (["half", "o"], "error: half has no whole number of images"),
        (["missing", "o"], "error: missing cannot be opened"),
        (["half"], "usage:"),
    ]:
        done = subprocess.run([test, *arguments], capture_output=True, text=True)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_without_a_compiler_nothing_is_checked(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = digits(workshop)
    monkeypatch.setattr("ristretto_cli.exports.c.shutil.which", lambda name: None)
    assert "not checked: gcc is not installed" in EXPORTS.get("c").write(request(model, weights, check=1))


def test_what_64_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    x = Place("x", (2,), 0, -(2**60), 2**60)
    large, larger = (Place(name, (2,), 0, -(2**60), 2**60) for name in ("y", "z"))
    steps = (Sum((x, x), large, (2**10, -(2**10))), Sum((large, x), larger, (2**20, 1)))
    program = Program("n", (Input(x, "x", 0, 0),), steps, {"z": larger}, {}, (), ShiftRounding.HALF_EVEN)
    with pytest.raises(RistrettoError, match="the computation of y, z needs over 64 bits"):
        write_program(program, tmp_path, pixels={}, vectors={}, where="net.prototxt")


def test_what_c_cannot_index_is_refused(tmp_path: Path) -> None:
    x, y = Place("x", (0,), 0, 0, 1), Place("y", (2**16, 2**15), 0, 0, 1)
    program = one_step(Move(x, y, np.zeros((1,), np.int32)), x)
    with pytest.raises(RistrettoError) as caught:
        write_program(program, tmp_path, pixels={}, vectors={}, where="net.prototxt")
    assert "the blob x has no elements" in str(caught.value)
    assert "the blob y has 2147483648 elements, more than 2^31 - 1" in str(caught.value)


def test_a_run_without_a_compiler_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ristretto_cli.exports.c.shutil.which", lambda name: None)
    with pytest.raises(NotChecked, match="gcc is not installed"):
        CExporter().run_written(tmp_path, random_program(0), {})
