"""Integer programs run in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from ristretto_cli.integers.arithmetic import requantize
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
    Product,
    Program,
    Requantize,
    Reshape,
    Step,
    Sum,
    SumPool,
    Table,
    read_by,
)
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.integers.values import integer_type
from ristretto_cli.ops import AnyArray, Shape

_FLOAT32_EXACT, _FLOAT64_EXACT = 2**24, 2**53  # all integers up to these
_CHUNK = 2**24  # elements of unfolded windows at a time


@dataclass(frozen=True)
class Interpreter:
    """A program that can be run any number of times.

    keep: which places to return besides the outputs.
    """

    program: Program
    keep: Callable[[Place], bool] = lambda place: False

    def run(self, numbers: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """The places that are kept, by name, as integers (N, *shape); numbers: float32 (N, *shape) by input place."""
        given = {each.place.name: quantized(numbers[each.place.name], each) for each in self.program.inputs}
        return self.run_integers(given)

    def run_integers(self, given: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """The same from the integers of the inputs."""
        wanted = {place.name for place in self.program.outputs.values()}
        memory: dict[str, AnyArray] = {}
        results: dict[str, AnyArray] = {}
        last = {place.name: i for i, step in enumerate(self.program.steps) for place in read_by(step)}
        for each in self.program.inputs:
            self._store(each.place, given[each.place.name], memory, results, wanted, last)
        for i, step in enumerate(self.program.steps):
            xs = [memory[place.name] for place in read_by(step)]
            self._store(step.y, compute(step, xs, self.program.rounding), memory, results, wanted, last)
            for place in read_by(step):
                if last[place.name] == i:
                    memory.pop(place.name, None)
        return results

    def _store(
        self,
        place: Place,
        value: AnyArray,
        memory: dict[str, AnyArray],
        results: dict[str, AnyArray],
        wanted: set[str],
        last: Mapping[str, int],
    ) -> None:
        array = value.astype(integer_type(place.low, place.high), copy=False)
        if place.name in last:
            memory[place.name] = array
        if place.name in wanted or self.keep(place):
            results[place.name] = array


def quantized(numbers: AnyArray, to: Input) -> AnyArray:
    """float32 numbers as the integers of an input: rounded half to even, saturated; NaN gives the largest."""
    place = to.place
    with np.errstate(all="ignore"):
        scaled = np.rint(np.ldexp(numbers.astype(np.float64), place.frac_bits))
    scaled = np.where(np.isnan(scaled), place.high, scaled)
    return scaled.clip(place.low, place.high).astype(integer_type(place.low, place.high))


def numbers_of(place: Place, integers: AnyArray) -> AnyArray:
    """The numbers that integers of a place stand for, as float32."""
    return (np.ldexp(integers.astype(np.float64), -place.frac_bits) / place.divisor).astype(np.float32)


def compute(step: Step, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    """The result of a step for integers of the places that it reads, (N, *shape) each."""
    return _compute(step, xs, rounding)


@singledispatch
def _compute(step: Any, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    raise TypeError(f"unknown step {type(step).__name__}")


@_compute.register
def _(step: Requantize, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    return requantize(xs[0].astype(np.int64), step.requantization, rounding)


@_compute.register
def _(step: Clamp, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    return xs[0].clip(step.y.low, step.y.high)


@_compute.register
def _(step: Sum, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    total = np.zeros(xs[0].shape, np.int64)
    for x, factor in zip(xs, step.factors, strict=True):
        total += x.astype(np.int64) * factor
    return total


@_compute.register
def _(step: Maximum, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    terms = [x.astype(np.int64) * factor for x, factor in zip(xs, step.factors, strict=True)]
    return np.asarray(np.maximum.reduce(terms))


@_compute.register
def _(step: Multiply, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    total = xs[0].astype(np.int64)
    for x in xs[1:]:
        total = total * x
    return total


@_compute.register
def _(step: Concat, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    terms = [x.astype(np.int64) * factor for x, factor in zip(xs, step.factors, strict=True)]
    return np.concatenate(terms, step.axis + 1)


@_compute.register
def _(step: Table, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    index = xs[0].astype(np.int64) - step.x.low
    if len(step.entries) == 1:
        return np.asarray(step.entries[0][index])
    channel = np.arange(len(step.entries)).reshape(-1, *(1,) * (index.ndim - 2))
    return step.entries[channel, index]


@_compute.register
def _(step: Affine, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    shape = (-1, *(1,) * (xs[0].ndim - 2))
    return xs[0].astype(np.int64) * step.multipliers.reshape(shape) + step.offsets.reshape(shape)


@_compute.register
def _(step: Move, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    flat = xs[0].reshape(len(xs[0]), -1)
    moved = np.where(step.indices.ravel() < 0, step.fill, flat[:, step.indices.ravel()])
    return moved.reshape(len(flat), *step.y.shape)


@_compute.register
def _(step: Reshape, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    return xs[0].reshape(len(xs[0]), *step.y.shape)


@_compute.register
def _(step: MaxPool, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    x, geometry = xs[0], step.geometry
    lowest = np.iinfo(x.dtype).min
    windows = _windows(x, geometry.kernel, geometry.stride, geometry.pad, step.y.shape[1:], lowest)
    axes = tuple(range(2, 2 + len(geometry.kernel)))
    return np.asarray(windows.max(axes))


@_compute.register
def _(step: SumPool, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    x, geometry = xs[0].astype(np.int64), step.geometry
    windows = _windows(x, geometry.kernel, geometry.stride, geometry.pad, step.y.shape[1:], 0)
    axes = tuple(range(2, 2 + len(geometry.kernel)))
    return np.asarray(windows.sum(axes)) * step.factors


@_compute.register
def _(step: InnerProduct, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    rows = xs[0].reshape(len(xs[0]), -1)
    sums = _matmul(rows, step.weights.T, _largest_sum(step))
    return _finished(step, sums, rounding).reshape(len(rows), *step.y.shape)


@_compute.register
def _(step: Convolution, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    x, geometry = xs[0], step.geometry
    outputs, kernel = step.weights.shape[0], step.weights.shape[2:]
    group = geometry.group
    extent = step.y.shape[1:]
    weights = step.weights.reshape(group, outputs // group, -1)
    per_image = weights.shape[2] * group * int(np.prod(extent))
    chunk = max(1, _CHUNK // max(1, per_image))
    found = []
    for start in range(0, len(x), chunk):
        part = x[start : start + chunk]
        windows = _windows(part, kernel, geometry.stride, geometry.pad, extent, 0, geometry.dilation)
        columns = windows.reshape(len(part), group, weights.shape[2], -1)
        sums = _matmul(weights, columns, _largest_sum(step))
        sums = sums.reshape(len(part), outputs, *extent)
        found.append(_finished(step, sums, rounding))
    return np.concatenate(found)


@_compute.register
def _(step: Deconvolution, xs: list[AnyArray], rounding: ShiftRounding) -> AnyArray:
    x, geometry = xs[0], step.geometry
    channels, per_group, kernel = step.weights.shape[0], step.weights.shape[1], step.weights.shape[2:]
    group, axes = geometry.group, len(kernel)
    spread = tuple(s * (n - 1) + 1 for s, n in zip(geometry.stride, x.shape[2:], strict=True))
    filled = np.zeros((*x.shape[:2], *spread), x.dtype)
    filled[_spatially(slice(None, None, s) for s in geometry.stride)] = x
    reach = tuple(d * (k - 1) for d, k in zip(geometry.dilation, kernel, strict=True))
    filled = np.pad(filled, [(0, 0), (0, 0), *((r, r) for r in reach)])
    whole = tuple(n + r for n, r in zip(spread, reach, strict=True))
    windows = _windows(filled, kernel, (1,) * axes, (0,) * axes, whole, 0, geometry.dilation)
    columns = windows.reshape(len(x), group, (channels // group) * int(np.prod(kernel)), -1)
    flipped = step.weights[_spatially(slice(None, None, -1) for _ in kernel)]
    parts = flipped.reshape(group, channels // group, per_group, -1).transpose(0, 2, 1, 3)
    sums = _matmul(np.ascontiguousarray(parts).reshape(group, per_group, -1), columns, _largest_sum(step))
    sums = sums.reshape(len(x), group * per_group, *whole)
    crop = _spatially(slice(p, p + n) for p, n in zip(geometry.pad, step.y.shape[1:], strict=True))
    return _finished(step, sums[crop], rounding)


def _largest_sum(step: Product) -> int:
    """The largest magnitude of a sum of products before it is shifted up."""
    return max(-step.low, step.high) >> step.up


def _finished(step: Product, sums: AnyArray, rounding: ShiftRounding) -> AnyArray:
    """Sums of products (N, C', ...), biased and requantized."""
    sums = sums << step.up
    if step.biases is not None:
        sums = sums + step.biases.reshape(-1, *(1,) * (sums.ndim - 2))
    return sums if step.requantization is None else requantize(sums, step.requantization, rounding)


def _matmul(a: AnyArray, b: AnyArray, largest: int) -> AnyArray:
    """a @ b, exactly; largest: of the magnitudes of all partial sums."""
    # Floating-point products of integers are exact as long as all partial sums are.
    if largest <= _FLOAT32_EXACT:
        return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.int64))
    if largest <= _FLOAT64_EXACT:
        return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64))
    return np.asarray(np.matmul(a.astype(np.int64), b.astype(np.int64)))


def _windows(
    x: AnyArray, kernel: Shape, stride: Shape, pad: Shape, extent: Shape, fill: int, dilation: Shape | None = None
) -> AnyArray:
    """The windows of x (N, C, *S), a view (N, C, *kernel, *extent); beyond x there is `fill`."""
    dilation = dilation or (1,) * len(kernel)
    sizes = [
        (n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(extent, stride, dilation, kernel, strict=True)
    ]  # of what the windows cover
    covered = np.full((*x.shape[:2], *sizes), fill, x.dtype)
    ends = [min(n, size - p) for n, size, p in zip(x.shape[2:], sizes, pad, strict=True)]
    inside = _spatially(slice(p, p + end) for p, end in zip(pad, ends, strict=True))
    covered[inside] = x[_spatially(slice(0, end) for end in ends)]
    strides = covered.strides[2:]
    return np.lib.stride_tricks.as_strided(
        covered,
        (*x.shape[:2], *kernel, *extent),
        (
            *covered.strides[:2],
            *(n * d for n, d in zip(strides, dilation, strict=True)),
            *(n * s for n, s in zip(strides, stride, strict=True)),
        ),
        writeable=False,
    )


def _spatially(slices: Iterable[slice]) -> tuple[slice, ...]:
    """An index of all of the first two axes, and of these parts of the others."""
    return (slice(None), slice(None), *slices)
