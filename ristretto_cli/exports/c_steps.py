"""The C functions of a program's steps, one for each loop over elements."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np

from ristretto_cli.exports.c_constants import literal
from ristretto_cli.exports.c_helpers import Number, wide, widest
from ristretto_cli.exports.c_loop import Loop, Shared, times
from ristretto_cli.exports.c_plan import Group, size_of, type_of
from ristretto_cli.exports.c_products import convolution, deconvolution, inner_product
from ristretto_cli.exports.c_windows import Window, by, strides_of
from ristretto_cli.integers.program import (
    Concat,
    Convolution,
    Deconvolution,
    InnerProduct,
    MaxPool,
    Move,
    SumPool,
)
from ristretto_cli.ops import AnyArray


def function_of(group: Group, shared: Shared) -> Loop:
    """The C function of a group of steps. TooWide if int64_t is too narrow for it."""
    loop = Loop(group, shared)
    if group.first is None:
        loop.elements()
    else:
        _compute(group.first, loop)
    return loop


@singledispatch
def _compute(step: Any, loop: Loop) -> None:
    """Add the lines of the first step of a group, which compute its elements one by one."""
    raise TypeError(f"unknown step {type(step).__name__}")


_compute.register(Convolution, convolution)
_compute.register(Deconvolution, deconvolution)
_compute.register(InnerProduct, inner_product)


@_compute.register
def _(step: MaxPool, loop: Loop) -> None:
    window = Window.of(step.x, step.y, step.geometry.kernel, step.geometry)
    x = loop.input(step.x)
    with loop.loops([("c", step.x.shape[0]), *window.loops]):
        taps = _taps(loop, window)
        first = " + ".join(by(f"from{a}", window.strides[a]) for a in range(len(window.ends)))
        loop.line(f"{type_of(step.x)} most = {x}[c * {math.prod(window.extent)} + {first}];")
        loop.line(taps[0])
        loop.line(f"{taps[1]}if ({x}[{taps[2]}] > most)")
        loop.line(f"{taps[1]}    most = {x}[{taps[2]}];")
        loop.line(f"const int32_t i = c * {math.prod(window.ends)} + {window.position};")
        loop.element(Number("most", "int8_t", step.x.low, step.x.high), "i", "c", math.prod(window.ends))


@_compute.register
def _(step: SumPool, loop: Loop) -> None:
    window = Window.of(step.x, step.y, step.geometry.kernel, step.geometry)
    x, most = loop.input(step.x), math.prod(step.geometry.kernel)
    low, high = min(step.x.low, 0) * most, max(step.x.high, 0) * most
    kind = widest((low, high), (step.y.low, step.y.high))
    value = "sum"
    factors = step.factors
    if (factors != 1).any():
        scaled = [f * end for f in (int(factors.max()),) for end in (low, high)]
        kind = widest((low, high), (min(scaled), max(scaled)))
        if (factors == factors.flat[0]).all():
            value = f"sum * {literal(int(factors.flat[0]), kind)}"
        else:
            value = f"sum * {loop.constant(step.y, 'factors', factors)}[{window.position}]"
    with loop.loops([("c", step.x.shape[0]), *window.loops]):
        taps = _taps(loop, window)
        loop.line(f"{kind} sum = 0;")
        loop.line(taps[0])
        loop.line(f"{taps[1]}sum += {x}[{taps[2]}];")
        loop.line(f"const int32_t i = c * {math.prod(window.ends)} + {window.position};")
        loop.element(Number(value, kind, step.y.low, step.y.high), "i", "c", math.prod(window.ends))


def _taps(loop: Loop, window: Window) -> tuple[str, str, str]:
    """Declare the ends of a window of a pooling; its loops, the indentation below them, and the index in x."""
    heads = []
    axes = range(len(window.ends))
    for a in axes:
        n, k, s, p = window.extent[a], window.kernel[a], window.stride[a], window.pad[a]
        start = window.start(a)
        begin = f"{start} < 0 ? 0 : {start}" if p else start
        cut = (window.ends[a] - 1) * s - p + k > n
        end = f"{start} + {k} < {n} ? {start} + {k} : {n}" if cut else f"{start} + {k}"
        loop.line(f"const int32_t from{a} = {begin}, to{a} = {end};")
        heads.append("    " * (a and loop._depth + a) + f"for (int32_t q{a} = from{a}; q{a} < to{a}; ++q{a})")
    at = " + ".join([f"c * {math.prod(window.extent)}", *(by(f"q{a}", window.strides[a]) for a in axes)])
    return "\n".join(heads), "    " * len(heads), at


@_compute.register
def _(step: Concat, loop: Loop) -> None:
    inner = math.prod(step.y.shape[step.axis :])
    outer, offset = size_of(step.y) // inner, 0
    for place, factor in zip(step.xs, step.factors, strict=True):
        x, part = loop.input(place), math.prod(place.shape[step.axis :])
        with loop.loops([("a", outer), ("b", part)]):
            loop.line(f"const int32_t i = a * {inner} + {offset} + b;")
            ends = place.low * factor, place.high * factor
            kind = widest(ends, (place.low, place.high), (factor, factor))
            number = Number(f"{x}[a * {part} + b]", kind, place.low, place.high)
            loop.element(Number(times(number, factor, kind), kind, *ends), "i")
        offset += part


@_compute.register
def _(step: Move, loop: Loop) -> None:
    x, kind = loop.input(step.x), wide(step.y.low, step.y.high)
    fill = literal(step.fill, kind)
    found = _affine_move(step.indices)
    if found is None:
        name = loop.constant(step.y, "indices", step.indices)
        with loop.loops([("i", size_of(step.y))]):
            value = f"{x}[{name}[i]]"
            if (step.indices < 0).any():
                value = f"{name}[i] < 0 ? {fill} : {value}"
            loop.element(Number(value, kind, step.y.low, step.y.high), "i")
        return
    start, strides, box = found
    shape = step.y.shape
    loops = [(f"p{a}", n) for a, n in enumerate(shape)]
    tests = []
    for a, (begin, end) in enumerate(box):
        tests += [f"p{a} >= {begin}"] if begin > 0 else []
        tests += [f"p{a} < {end}"] if end < shape[a] else []
    with loop.loops(loops):
        steps = strides_of(shape)
        loop.line(f"const int32_t i = {' + '.join(by(p, steps[a]) for a, (p, _) in enumerate(loops)) or '0'};")
        terms = [by(p, strides[a]) for a, (p, _) in enumerate(loops) if strides[a]]
        value = f"{x}[{' + '.join([*terms, *([str(start)] if start or not terms else [])])}]"
        value = f"{' && '.join(tests)} ? {value} : {fill}" if tests else value
        loop.element(Number(value, kind, step.y.low, step.y.high), "i")


def _affine_move(indices: AnyArray) -> tuple[int, list[int], list[tuple[int, int]]] | None:
    """The index at position 0, the strides, and the box of a move by an affine function; None for another one."""
    filled = indices < 0
    if filled.all():
        return None
    box = []
    for a in range(indices.ndim):
        others = tuple(b for b in range(indices.ndim) if b != a)
        (inside,) = np.nonzero(~filled.all(others))
        box.append((int(inside[0]), int(inside[-1]) + 1))
    within = indices[tuple(slice(begin, end) for begin, end in box)].astype(np.int64)
    if (within < 0).any() or within.size != indices.size - int(filled.sum()):
        return None
    corner = within[(0,) * within.ndim]
    strides = []
    for a in range(within.ndim):
        second = tuple(1 if b == a else 0 for b in range(within.ndim))
        strides.append(int(within[second] - corner) if within.shape[a] > 1 else 0)
    expected = np.full(within.shape, corner)
    for a, stride in enumerate(strides):
        expected += np.arange(within.shape[a]).reshape(-1, *(1,) * (within.ndim - 1 - a)) * stride
    if (within != expected).any():
        return None
    return int(corner) - sum(s * begin for s, (begin, _) in zip(strides, box, strict=True)), strides, box
