"""Sums of products in C: convolutions, deconvolutions and inner products."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ristretto_cli.exports.c_constants import Packed, literal, packed, packing_of
from ristretto_cli.exports.c_helpers import Helpers, Number, wide
from ristretto_cli.exports.c_loop import Loop
from ristretto_cli.exports.c_plan import bits_of, type_of
from ristretto_cli.exports.c_windows import Window, by, strides_of
from ristretto_cli.integers.program import (
    Convolution,
    Deconvolution,
    InnerProduct,
    Product,
)
from ristretto_cli.ops import AnyArray

_IN_CACHE = 2**14  # bytes of weights that are fast to read again for each position
_COLUMNS = 4  # positions that share a pass over more weights than these


def inner_product(step: InnerProduct, loop: Loop) -> None:
    """One row of weights after another."""
    rows = step.weights.reshape(step.weights.shape[0], -1)
    x, kind = loop.input(step.x), type_of(step.x)
    weights = _weights(loop, step, rows)
    column = _column_type(kind)
    if column != kind:
        to = loop.shared.scratch.array("column", column, rows.shape[1])
        with loop.loops([("k", rows.shape[1])]):
            loop.line(f"{to}[k] = {x}[k];")
        x = to
    with loop.loops([("o", len(rows))]):
        loop.line(f"const {_sum_type(step)} sum = {weights.dot(x, column, 'o', rows.shape[1])};")
        loop.element(_finished(loop, step, "sum", "o"), "o", "o", 1)


def convolution(step: Convolution, loop: Loop) -> None:
    """The window at each position is copied to a column, which is multiplied with the weights of all outputs."""
    window = Window.of(step.x, step.y, step.weights.shape[2:], step.geometry)
    groups = step.geometry.group
    rows = step.weights.reshape(step.weights.shape[0], -1)
    weights = _weights(loop, step, rows)
    outputs, length = len(rows) // groups, rows.shape[1]
    column = _column_type(type_of(step.x))
    columns = 1 if weights.bytes // groups <= _IN_CACHE else min(_COLUMNS, window.ends[-1])
    to = loop.shared.scratch.array("column", column, length * columns)
    *outer, last = window.loops
    block = [("g", groups)] if groups > 1 else []
    with loop.loops([*block, *outer]):
        if columns == 1:
            with loop.loops([last]):
                _fill(loop, step, window, column, to)
                with loop.loops([("o", outputs)]):
                    _convolved(loop, step, weights, window, to, length, outputs)
            return
        end = window.ends[-1]
        with loop.block(f"for (int32_t block = 0; block < {end}; block += {columns})"):
            loop.line(f"const int32_t count = {end} - block < {columns} ? {end} - block : {columns};")
            with loop.loops([("b", "count")]):
                loop.line(f"const int32_t {last[0]} = block + b;")
                _fill(loop, step, window, column, f"{to} + b * {length}")
            with loop.loops([("o", outputs), ("b", "count")]):
                loop.line(f"const int32_t {last[0]} = block + b;")
                _convolved(loop, step, weights, window, f"{to} + b * {length}", length, outputs)


def _convolved(
    loop: Loop, step: Convolution, weights: _Weights, window: Window, column: str, length: int, outputs: int
) -> None:
    row = f"g * {outputs} + o" if step.geometry.group > 1 else "o"
    extent = math.prod(window.ends)
    if step.geometry.group > 1:
        loop.line(f"const int32_t row = {row};")
        row = "row"
    kind = _sum_type(step)
    loop.line(f"const {kind} sum = {weights.dot(column, _column_type(type_of(step.x)), row, length)};")
    loop.line(f"const int32_t i = {row} * {extent} + {window.position};")
    loop.element(_finished(loop, step, "sum", row), "i", row, extent)


def _fill(loop: Loop, step: Convolution, window: Window, kind: str, to: str) -> None:
    """Copy a window of x to a column, with zeros beyond its ends."""
    x, axes = loop.input(step.x), range(len(window.kernel))
    channels = step.weights.shape[1]
    group = f"g * {channels * math.prod(window.extent)}" if step.geometry.group > 1 else ""
    loop.line(f"{kind} *column = {to};")
    for a in axes:
        loop.line(f"const int32_t s{a} = {window.start(a)};")
    base = " + ".join(filter(None, [group, *(by(f"s{a}", window.strides[a]) for a in axes)]))
    loop.line(f"const int32_t base = {base};")
    taps = " + ".join(by(f"k{a}", window.dilation[a] * window.strides[a]) for a in axes)
    source = f"{x}[base + c * {math.prod(window.extent)} + {taps}]"
    whole = [("c", channels), *((f"k{a}", window.kernel[a]) for a in axes)]
    if not any(window.pad):
        with loop.loops(whole):
            loop.line(f"*column++ = {source};")
        return
    loop.helpers.inside()
    for a in axes:
        k, d, n = window.kernel[a], window.dilation[a], window.extent[a]
        loop.line(f"const int32_t from{a} = inside_begin(s{a}, {d}, {k});")
        loop.line(f"const int32_t to{a} = inside_end(s{a}, {d}, {k}, {n});")
    inside = " && ".join(f"from{a} == 0 && to{a} == {window.kernel[a]}" for a in axes)
    with loop.block(f"if ({inside})"), loop.loops(whole):
        loop.line(f"*column++ = {source};")
    with loop.block("else"):
        length = channels * math.prod(window.kernel)
        loop.line(f"for (int32_t k = 0; k < {length}; ++k)")
        loop.line("    column[k] = 0;")
        loop.line(f"for (int32_t c = 0; c < {channels}; ++c)")
        for a in axes:
            loop.line("    " * (a + 1) + f"for (int32_t k{a} = from{a}; k{a} < to{a}; ++k{a})")
        inner = strides_of(window.kernel)
        at = " + ".join(by(f"k{a}", inner[a]) for a in axes)
        loop.line("    " * (len(axes) + 1) + f"column[c * {math.prod(window.kernel)} + {at}] = {source};")


def deconvolution(step: Deconvolution, loop: Loop) -> None:
    """The sums along the last axis are kept in a row, to which each weight adds its products."""
    window = Window.of(step.x, step.y, step.weights.shape[2:], step.geometry)
    groups, axes, taps = step.geometry.group, range(len(window.kernel)), math.prod(window.kernel)
    channels, outputs = step.weights.shape[0] // groups, step.weights.shape[1]
    parts = step.weights.reshape(groups, channels, outputs, taps).transpose(0, 2, 1, 3)
    weights = _weights(loop, step, parts.reshape(groups * outputs, channels * taps))
    kind, x = _sum_type(step), loop.input(step.x)
    sums = loop.shared.scratch.array("sums", kind, window.ends[-1])
    loop.helpers.inside()
    last = axes[-1]
    block = [("g", groups)] if groups > 1 else []
    *outer, (position, end) = window.loops
    with loop.loops([*block, ("o", outputs), *outer]):
        row = "o" if groups == 1 else f"(g * {outputs} + o)"
        loop.line(f"for (int32_t i = 0; i < {end}; ++i)")
        loop.line(f"    {sums}[i] = 0;")
        with loop.loops([("c", channels), *((f"k{a}", window.kernel[a]) for a in axes)]):
            channel = f"(g * {channels} + c)" if groups > 1 else "c"
            base = [f"{channel} * {math.prod(window.extent)}"]
            for a in axes[:-1]:
                p, d, s = window.pad[a], window.dilation[a], window.stride[a]
                loop.line(f"const int32_t t{a} = p{a} + {p} - {by(f'k{a}', d)};")
                loop.line(f"if (t{a} < 0 || t{a} % {s} != 0 || t{a} / {s} >= {window.extent[a]})")
                loop.line("    continue;")
                base.append(by(f"(t{a} / {s})", window.strides[a]))
            d, s, n = window.dilation[last], window.stride[last], window.extent[last]
            loop.line(f"const int32_t shift = {by(f'k{last}', d)} - {window.pad[last]};")
            loop.line(f"const int32_t end = inside_end(shift, {s}, {n}, {end});")
            inner = strides_of(window.kernel)
            tap = " + ".join([f"c * {taps}", *(by(f"k{a}", inner[a]) for a in axes)])
            loop.line(f"const {kind} weight = {weights.at(row, tap)};")
            loop.line(f"const int32_t base = {' + '.join(base)};")
            loop.line(f"for (int32_t q = inside_begin(shift, {s}, {n}); q < end; ++q)")
            loop.line(f"    {sums}[{by('q', s)} + shift] += weight * {x}[base + q];")
        with loop.loops([(position, end)]):
            extent = math.prod(window.ends)
            loop.line(f"const int32_t i = {row} * {extent} + {window.position};")
            loop.element(_finished(loop, step, f"{sums}[{position}]", row), "i", row, extent)


def _weights(loop: Loop, step: Product, rows: AnyArray) -> _Weights:
    packing = packing_of(rows) if loop.shared.pack else None
    stored = rows if packing is None else packed(rows, packing)
    name = f"{loop.shared.prefix}_{loop.shared.names[step.y.name]}_weights"
    about = f"{step.layer}: {len(rows)} rows of {rows.shape[1]} weights of {step.weights_bits} bits"
    about += f", times 2^{-step.weights_frac_bits}"
    if packing is not None:
        about += f"; a row has {packing.bytes} bytes, byte k has weights k, k + {packing.bytes}, ... from bit 0 on"
    kind = loop.shared.constants.add(name, stored, about, "" if packing is None else "uint8_t")
    size = stored.size * bits_of(kind) // 8
    return _Weights(name, kind, stored.shape[1], packing, loop.helpers, _sum_type(step), size)


def _finished(loop: Loop, step: Product, total: str, row: str) -> Number:
    """A sum of products, biased and requantized."""
    kind = _sum_type(step)
    if step.up:
        total = f"{total} * {literal(1 << step.up, kind)}"
    if step.biases is not None and step.biases.any():
        about = f"{step.layer}: biases, times 2^{-step.frac_bits}"
        total += f" + {loop.constant(step.y, 'biases', step.biases, about)}[{row}]"
    number = Number(total, kind, step.low, step.high)
    return number if step.requantization is None else loop.helpers.requantized(number, step.requantization)


@dataclass(frozen=True)
class _Weights:
    """Rows of weights in memory. length: of a row, in elements of its type."""

    name: str
    kind: str
    length: int
    packing: Packed | None
    helpers: Helpers
    sum_type: str
    bytes: int

    def dot(self, x: str, x_kind: str, row: str, count: int) -> str:
        """A call for the sum of a row's products with x."""
        function = self.helpers.dot(self.kind, x_kind, self.sum_type, self.packing)
        return f"{function}({self.name} + {by(row, self.length)}, {x}, {count})"

    def at(self, row: str, k: str) -> str:
        """A weight."""
        if self.packing is None:
            return f"{self.name}[{row} * {self.length} + {k}]"
        return f"{self.helpers.unpack(self.packing)}({self.name} + {row} * {self.length}, {self.length}, {k})"


def _sum_type(step: Product) -> str:
    return wide(step.low, step.high)


def _column_type(kind: str) -> str:
    """The type of a copy of x from which products are fast: compilers multiply 16 bits best."""
    return "int16_t" if bits_of(kind) == 8 else kind
