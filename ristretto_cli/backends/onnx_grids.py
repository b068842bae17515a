"""The ONNX backend that knows on which grids values lie: trims that change nothing are left out, others made cheap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from ristretto_cli.backends.onnx_bounds import FAR_FROM_INFINITY
from ristretto_cli.backends.onnx_graph import Node
from ristretto_cli.backends.onnx_integers import MOST_STEPS_BITS, Product, fits_bytes, record_rescaled
from ristretto_cli.backends.onnx_kernels import ALL, IntegerKernels
from ristretto_cli.backends.onnx_pool import Windows
from ristretto_cli.backends.onnx_scaled import MOST_SHIFT, ScaledOps
from ristretto_cli.backends.onnx_stored import Blocks, Factors, Stored
from ristretto_cli.ops import ConvGeometry, Grid, PoolGeometry

_SHORTS = Grid(0, -(2**15), 2**15 - 1)
_MOST_IN_BLOCKS = 2**21
_BLOCK = 16  # channels, at most
MOST_LINKS = 50


class GridOps(ScaledOps):
    """ScaledOps that computes with whole numbers.

    A trimmed value is recorded in several ways: as itself, as multiples of its grid's step, as bytes; a model has
    those alone that somebody reads. The results are OnnxOps', but for zeros without a sign, and for sums of products
    that float32 rounds: in integers they are exact. kernels: the integer kernels that may be used. has_blocks: whether
    onnxruntime keeps channels in blocks between convolutions.
    """

    def __init__(
        self, rng: np.random.Generator | None = None, *, kernels: IntegerKernels = ALL, has_blocks: bool = True
    ) -> None:
        super().__init__(rng)
        self._kernels = kernels
        self._has_blocks = has_blocks
        self._stored: dict[str, Stored] = {}
        self._factors: dict[str, Factors] = {}
        self._cuts: dict[tuple[str, int, int], Node] = {}

    def quantize_fixed(self, x: Node, grid: Grid) -> Node:
        if grid.low < 0 and fits_bytes(above := replace(grid, low=0)) and self.never_negative(x):
            grid = above  # of a signed 8-bit format, pairs of products with such bytes fit 16 bits
        stored = self._stored.get(x.name)
        if stored is not None and grid.contains(stored.grid):
            return x
        if stored is not None and stored.parts is not None:
            parts, axis = stored.parts
            return self.concat([self.quantize_fixed(part, grid) for part in parts], axis)
        if abs(grid.frac_bits) > MOST_SHIFT:
            return super().quantize_fixed(x, grid)
        again = None if stored is None else self._again(stored, grid)
        return self._keep(again or self._of_product(x, grid) or self._of_any(x, grid))

    def _again(self, stored: Stored, grid: Grid) -> Stored | None:
        """What lies on a grid brought onto another one, as bytes or in blocks of channels; None for all else."""
        shift = grid.frac_bits - stored.grid.frac_bits
        narrower = Grid(grid.frac_bits, max(stored.grid.low, grid.low), min(stored.grid.high, grid.high))
        if stored.as_bytes and shift == 0 and fits_bytes(narrower):
            return replace(self._of_bytes(_needed(stored.bytes_from), narrower), links=stored.links + 1)
        if stored.as_bytes and fits_bytes(grid) and abs(shift) <= MOST_STEPS_BITS and self._kernels.rescales():
            again = cache(lambda low: record_rescaled(self.graph, self._bytes(stored), stored.grid.low, shift, low))
            return replace(self._of_bytes(again, grid), links=stored.links + 1)
        largest = math.ldexp(max(-stored.grid.low, stored.grid.high), shift)
        if stored.in_blocks is Blocks.NO or max(math.ldexp(largest, -shift), largest) > _MOST_IN_BLOCKS:
            return None
        scale = math.ldexp(1.0, shift)
        unrounded = cache(lambda: self._set_bound(self._by_channel(stored.whole(), scale, 0.0), largest))
        return replace(self._rounded(unrounded, grid, in_blocks=Blocks.MADE), links=stored.links + 1)

    def _keep(self, stored: Stored) -> Node:
        """The value itself."""
        if stored.links >= MOST_LINKS:
            stored = self._without_links(stored)
        step = math.ldexp(1.0, -stored.grid.frac_bits)
        if stored.value is not None:
            value = stored.value()
        elif stored.as_bytes:
            value = self._dequantized(self._bytes(stored), step, _zero(stored.grid.low))
        else:
            value = self.mul(stored.whole(), self.constant(step))
        self._stored[value.name] = stored
        return self._set_bound(value, stored.grid.largest, never_negative=stored.grid.low >= 0)

    def _without_links(self, stored: Stored) -> Stored:
        """The same, recorded now, so that no chain of functions becomes longer than Python's stack."""
        stored.whole()
        if stored.bytes_from is None:
            return replace(stored, parts=None, links=0)
        low = stored.grid.low
        made = stored.bytes_from(low)
        return replace(stored, bytes_from=cache(lambda other: self._from(made, low, other)), parts=None, links=0)

    def _bytes(self, stored: Stored) -> Node:
        """The bytes of a value, which count its grid's steps from the lowest one."""
        return self._cut(_needed(stored.bytes_from)(stored.grid.low), stored.grid.low, stored.grid.high)

    def _cut(self, made: Node, low: int, high: int, *, lowest: int | None = None) -> Node:
        """Bytes that count steps from `low`, cut off at `high`, and at `lowest` if that is given."""
        bottom = 0 if lowest is None else lowest - low
        if bottom == 0 and high - low >= 255:
            return made
        key = made.name, bottom, high - low
        if key not in self._cuts:
            start = self.graph.constant(np.uint8(bottom)) if bottom else None
            end = self.graph.constant(np.uint8(high - low))
            self._cuts[key] = self.graph.record("Clip", [made, start, end], [made.shape])[0]
        return self._cuts[key]

    def _from(self, made: Node, low: int, other: int) -> Node:
        """Bytes that count steps from `low`, counted from another one."""
        if low == other or self._kernels.rescales():
            return record_rescaled(self.graph, made, low, 0, other)
        return self._to_integers(self._dequantized(made, 1.0, _zero(low)), 1.0, _zero(other))

    def _of_any(self, x: Node, grid: Grid) -> Stored:
        """Any value, brought onto a grid."""
        step = math.ldexp(1.0, -grid.frac_bits)
        if self.bound(x) is not None and fits_bytes(grid):
            return self._of_bytes(self._quantized(x, step), grid)
        if self.bound(x) is not None and grid == replace(_SHORTS, frac_bits=grid.frac_bits):
            shorts = cache(lambda: self._to_integers(x, step, np.int16(0)))
            value = cache(lambda: self._dequantized(shorts(), step, np.int16(0)))
            return Stored(grid, cache(lambda: self._dequantized(shorts(), 1.0, np.int16(0))), value=value)
        unrounded = cache(lambda: self.mul(x, self.constant(math.ldexp(1.0, grid.frac_bits))))
        return self._rounded(unrounded, grid)

    def _quantized(self, x: Node, step: float) -> Callable[[int], Node]:
        return cache(lambda low: self._to_integers(x, step, _zero(low)))

    def _of_bytes(self, bytes_from: Callable[[int], Node], grid: Grid) -> Stored:
        """What is computed as bytes, and all else from these."""
        made = Stored(grid, cache(lambda: self._dequantized(self._bytes(made), 1.0, _zero(grid.low))), bytes_from, True)
        return made

    def _rounded(self, unrounded: Callable[[], Node], grid: Grid, *, in_blocks: Blocks = Blocks.NO) -> Stored:
        def rounded() -> Node:
            if in_blocks is not Blocks.NO and max(-grid.low, grid.high) <= _MOST_IN_BLOCKS:
                return self._rounded_in_blocks(unrounded(), grid, in_blocks)
            return self.round(self.clip(unrounded(), float(grid.low), float(grid.high)))

        whole = cache(rounded)
        stored = Stored(grid, whole, unrounded=unrounded, in_blocks=in_blocks)
        if fits_bytes(grid):
            # QuantizeLinear rounds as well, but defines no result for what is not finite.
            bounded = cache(lambda: unrounded() if self.bound(unrounded()) is not None else whole())
            stored = replace(stored, bytes_from=cache(lambda low: self._to_integers(bounded(), 1.0, _zero(low))))
        return stored

    def _of_product(self, x: Node, grid: Grid) -> Stored | None:
        """A product of a value on a grid, brought onto another; None where x is not one."""
        factors = self._factors.get(x.name)
        bottom = None if factors is None else self._stored.get(factors.bottom.name)
        if factors is None or bottom is None:
            return None
        form, kernel = None, None
        weight_grid = self._constant_grids.get(factors.weight.name)
        if fits_bytes(grid) and bottom.bytes_from is not None and weight_grid is not None:
            product = Product(
                steps=bottom.grid,
                weight=self.graph.initializers[factors.weight.name],
                weight_grid=weight_grid,
                bias=None if factors.bias is None else self.graph.initializers[factors.bias.name],
                shape=x.shape,
                geometry=factors.geometry,
            )
            form = product.integer_form(grid)
            kernel = None if form is None else self._kernels.fastest(form)
        integer = None
        if form is not None and kernel is not None:
            record = partial(form.record, self.graph, kernel=kernel)
            integer = cache(lambda low: record(self._bytes(bottom), low))
            if not form.rest.any():
                return self._of_bytes(integer, grid)
        if not self._can_be_scaled(x, grid.frac_bits):
            return None
        unrounded = cache(lambda: self._product_times_two_to(x, grid.frac_bits))
        rectified = integer if form is not None and form.suits_rectified else None
        direct = self._of_any(x, grid)  # costs less where nobody multiplies with the whole numbers
        value = cache(lambda: self._keep(direct)) if direct.unrounded is None else None
        in_blocks = self._has_blocks and len(x.shape) == 4 and x.shape[1] % _BLOCK == 0
        rounded = self._rounded(unrounded, grid, in_blocks=Blocks.MADE if in_blocks else Blocks.NO)
        return replace(rounded, rectified=rectified, value=value)

    def _rounded_in_blocks(self, x: Node, grid: Grid, blocks: Blocks) -> Node:
        """What has a bound and its channels in blocks, as the nearest integers from grid.low to grid.high.

        Behind a convolution onnxruntime keeps the channels in blocks as long as what follows can work with them.
        Rounding cannot; an activation can, and so can a convolution of each channel for itself. Numbers from 1/2 to 1
        are multiples of 2^-24: added to 3/4, what is 2^24 times as large is rounded as `round` does it.
        """
        scale = 2.0**24
        if blocks is Blocks.MADE:
            lifted = self._one("HardSigmoid", [x], x, alpha=1 / scale, beta=0.75)  # cuts off far from the grid
        else:
            lifted = self._by_channel(x, 1 / scale, 0.75)
        whole = self._set_bound(self._by_channel(lifted, scale, -0.75 * scale), scale)
        return self.clip(whole, float(grid.low), float(grid.high))

    def _by_channel(self, x: Node, scale: float, offset: float) -> Node:
        channels = x.shape[1]
        weight = self.constant(np.full((channels, 1, 1, 1), scale, np.float32))
        bias = self.constant(np.full(channels, offset, np.float32))
        return super().conv(x, weight, bias, ConvGeometry.dense(2, group=channels))

    def relu(self, x: Node) -> Node:
        stored = self._stored.get(x.name)
        if stored is None:
            return super().relu(x)
        grid, links = replace(stored.grid, low=0), stored.links + 1
        bytes_from = stored.rectified or stored.bytes_from
        if bytes_from is not None and (stored.as_bytes or stored.rectified):
            return self._keep(replace(self._of_bytes(bytes_from, grid), links=links))
        if stored.unrounded is not None:
            return self._keep(replace(self._rounded(stored.unrounded, grid, in_blocks=stored.in_blocks), links=links))
        before = stored.whole
        whole = cache(lambda: super(GridOps, self).relu(before()))
        return self._keep(Stored(grid, whole, bytes_from, links=links))

    def max_pool(self, x: Node, geometry: PoolGeometry) -> Node:
        pool = partial(super().max_pool, geometry=geometry)
        top = pool(x)
        filled = any(axis.outside for axis in Windows.of(x.shape[2:], geometry))
        stored = self._stored.get(x.name)
        if stored is None or filled:
            return top
        if stored.parts is not None and stored.parts[1] == 1:
            parts, axis = stored.parts  # behind the pooling there is less to be joined, and brought onto one grid
            pooled = [self.max_pool(part, geometry) for part in parts]
            return self.concat(pooled, axis)
        if stored.as_bytes or stored.unrounded is None:
            return self._moved(x, top, pool)
        # The largest value is the largest before rounding: there are fewer to round behind.
        grid, unrounded = stored.grid, stored.unrounded
        cut = cache(lambda: pool(self.clip(unrounded(), float(grid.low), float(grid.high))))
        blocks = Blocks.NO if stored.in_blocks is Blocks.NO else Blocks.KEPT
        return self._keep(replace(self._rounded(cut, grid, in_blocks=blocks), links=stored.links + 1))

    def reshape(self, x: Node, shape: Sequence[int]) -> Node:
        return self._moved(x, super().reshape(x, shape), lambda value: super(GridOps, self).reshape(value, shape))

    def slice(self, x: Node, axis: int, start: int, stop: int) -> Node:
        take = partial(super().slice, axis=axis, start=start, stop=stop)
        return self._moved(x, take(x), take)

    def _moved(self, x: Node, top: Node, move: Callable[[Node], Node]) -> Node:
        """What picks elements of x, in whichever way x is stored."""
        stored = self._stored.get(x.name)
        if stored is None:
            return top
        whole, bytes_from, links = stored.whole, stored.bytes_from, stored.links + 1
        # Bytes are cut off at the grid's end after the move, where there may be fewer.
        made = None if bytes_from is None else cache(lambda low: move(bytes_from(low)))
        if made is not None and stored.as_bytes:
            return self._keep(replace(self._of_bytes(made, stored.grid), links=links))
        return self._keep(Stored(stored.grid, cache(lambda: move(whole())), made, links=links))

    def concat(self, xs: Sequence[Node], axis: int) -> Node:
        top = super().concat(xs, axis)
        parts = [self._stored.get(x.name) for x in xs]
        stored = [part for part in parts if part is not None]
        if len(stored) < len(xs):
            return top
        join = partial(super().concat, axis=axis)
        frac_bits = max(part.grid.frac_bits for part in stored)
        low = min(part.grid.low << frac_bits - part.grid.frac_bits for part in stored)
        high = max(part.grid.high << frac_bits - part.grid.frac_bits for part in stored)
        grid = Grid(frac_bits, low, high)
        if max(-low, high) >= FAR_FROM_INFINITY:
            return top
        # Many parts, each brought to a grid for itself again and again, would cost more than the whole.
        pieces = None if any(part.parts is not None for part in stored) else (tuple(xs), axis)
        if any(part.grid.frac_bits != frac_bits for part in stored):
            step = self.constant(math.ldexp(1.0, frac_bits))
            self._stored[top.name] = Stored(grid, cache(lambda: self.mul(top, step)), parts=pieces)
            return top
        links = max(part.links for part in stored) + 1
        made = None
        if fits_bytes(grid) and all(part.bytes_from is not None for part in stored):
            made = cache(lambda low: join([self._joinable(part, low, high) for part in stored]))
        if made is not None and all(part.as_bytes for part in stored):
            return self._keep(replace(self._of_bytes(made, grid), parts=pieces, links=links))
        whole = cache(lambda: join([part.whole() for part in stored]))
        return self._keep(Stored(grid, whole, made, parts=pieces, links=links))

    def _joinable(self, part: Stored, low: int, high: int) -> Node:
        """A part's bytes that count from `low`, cut off at its grid's ends; the whole will be cut off at `high`."""
        made = _needed(part.bytes_from)(low)
        if part.grid.low > low:
            return self._cut(made, low, part.grid.high, lowest=part.grid.low)
        return made if part.grid.high == high else self._cut(made, low, part.grid.high)

    def conv(self, x: Node, weight: Node, bias: Node | None, geometry: ConvGeometry) -> Node:
        apply = partial(super().conv, geometry=geometry)
        return self._multiply(Factors(x, apply, weight, bias, geometry), apply(x, weight, bias))

    def linear(self, x: Node, weight: Node, bias: Node | None) -> Node:
        apply = super().linear
        return self._multiply(Factors(x, apply, weight, bias), apply(x, weight, bias))

    def _multiply(self, factors: Factors, top: Node) -> Node:
        """The product, of whole numbers where the bottom is there as such; top: of the values themselves.

        Powers of two go into the weights of a convolution, which are fewer than what it reads and makes. Those of an
        inner product are more, by far.
        """
        stored = self._stored.get(factors.bottom.name)
        constants = (factors.weight, factors.bias)
        if any(value is not None and self.known(value) is None for value in constants):
            return top
        if factors.geometry is not None and stored is not None and not stored.as_bytes:
            shift = -stored.grid.frac_bits
            if self._is_exact_times_two_to(factors.weight, shift):
                bound = self.bound(top)
                weight = self._times_two_to(factors.weight, shift)
                top = self._set_bound(factors.apply(stored.whole(), weight, factors.bias), bound)
        self._factors[top.name] = factors
        return top

    def _can_be_scaled(self, x: Node, exponent: int) -> bool:
        """Whether a product of constants times a power of two is exactly what `_product_times_two_to` makes."""
        factors = self._factors[x.name]
        stored, bound = self._stored.get(factors.bottom.name), self.bound(x)
        if bound is None or abs(exponent) > MOST_SHIFT or math.ldexp(bound, exponent) >= FAR_FROM_INFINITY:
            return False
        if factors.geometry is None:
            return True
        shift = exponent if stored is None else exponent - stored.grid.frac_bits
        return self._is_exact_times_two_to(factors.weight, shift) and (
            factors.bias is None or self._is_exact_times_two_to(factors.bias, exponent)
        )

    def _product_times_two_to(self, x: Node, exponent: int) -> Node:
        """A product of constants, times a power of two; a convolution of constants which are so many times as large."""
        factors = self._factors[x.name]
        if factors.geometry is None:
            return self.mul(x, self.constant(math.ldexp(1.0, exponent)))
        bottom, weight, shift = factors.bottom, factors.weight, exponent
        stored = self._stored.get(bottom.name)
        if stored is not None:
            bottom, shift = stored.whole(), exponent - stored.grid.frac_bits
        bias = None if factors.bias is None else self._times_two_to(factors.bias, exponent)
        top = factors.apply(bottom, self._times_two_to(weight, shift), bias)
        return self._set_bound(top, self._times(self.bound(x), math.ldexp(1.0, exponent)))

    def _to_integers(self, x: Node, step: float, zero: np.integer[Any]) -> Node:
        return self._one("QuantizeLinear", [x, self.constant(step), self.graph.constant(np.asarray(zero))], x)

    def _dequantized(self, stored: Node, step: float, zero: np.integer[Any]) -> Node:
        operands = [stored, self.constant(step), self.graph.constant(np.asarray(zero))]
        return self._one("DequantizeLinear", operands, stored)


def _zero(low: int) -> np.integer[Any]:
    """The zero point of bytes that count steps from `low`."""
    zero: np.integer[Any] = np.uint8(-low)
    return zero


def _needed(bytes_from: Callable[[int], Node] | None) -> Callable[[int], Node]:
    if bytes_from is None:
        raise ValueError("the value is not there as bytes")
    return bytes_from
