"""The ONNX backend that knows which values are minifloats: their second trim, and what leads to it, are made cheap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from ristretto_cli.backends.onnx_graph import Node
from ristretto_cli.backends.onnx_grids import MOST_LINKS, GridOps
from ristretto_cli.backends.onnx_kernels import ALL, IntegerKernels
from ristretto_cli.backends.onnx_pool import Windows
from ristretto_cli.backends.shapes import Sized
from ristretto_cli.formats.minifloat import nearest
from ristretto_cli.ops import Floats, PoolGeometry

_FEW_MANT_BITS = 10
_MOST_MANT_BITS = 22
_MOST_TOP_EXPONENT = 60
_SCALAR = Sized(())


@dataclass(frozen=True)
class Trimmed:
    """A value that was brought to floats once, and what a second time makes of it.

    The first time leaves values that were rounded up past the largest number where they are; the second time
    these become that number, too. What both make of a value is monotone: it is the same before a pooling as behind.
    twice: both; None where it is that already. cut: for a lowest value, what is rounded to give `twice`, cut off there
    and at the largest number, and times 2^scale. low: that lowest value. links: how many of these functions may have
    to call each other.
    """

    floats: Floats
    twice: Callable[[], Node] | None
    cut: Callable[[float], Node] | None = None
    low: float = -math.inf
    links: int = 0


class FloatsOps(GridOps):
    """GridOps that trims minifloats twice in one go where nobody reads what the first trim gives.

    With assumes_in_range it assumes that no value has an exponent above its format's top one; `peak` tells.
    """

    def __init__(
        self, rng: np.random.Generator | None = None, *, kernels: IntegerKernels = ALL, has_blocks: bool = True
    ) -> None:
        super().__init__(rng, kernels=kernels, has_blocks=has_blocks)
        self.assumes_in_range = False
        self._trimmed: dict[str, Trimmed] = {}
        self._peaks: dict[str, tuple[Node, float]] = {}
        self._magnitudes: dict[str, Node] = {}
        self._relus: dict[str, Node] = {}

    def quantize_float(self, x: Node, floats: Floats) -> Node:
        before = self._trimmed.get(x.name)
        if before is not None and before.floats == floats:
            if before.twice is None:
                return x
            value = self._set_bound(before.twice(), floats.largest)
            self._trimmed[value.name] = Trimmed(floats, None)
            return value
        scaled = self._to_be_rounded(x, floats)
        if scaled is None or not self.assumes_in_range:
            value = super().quantize_float(x, floats)
        else:
            value = self._round_mantissa(scaled(), floats, 0.0 if self.never_negative(x) else -math.inf)
            self._peaks[value.name] = scaled(), math.ldexp(1.0, floats.top_exponent + 1 + _scale(floats))
        cut = None
        if scaled is not None:
            largest, times = math.ldexp(floats.largest, _scale(floats)), scaled
            cut = cache(lambda low: self.clip(times(), max(low, -largest), largest))
        self._trimmed[value.name] = self._trims(value, floats, cut, -math.inf)
        return self._set_bound(value, 2 * floats.largest)

    def peak(self, outputs: Iterable[Node]) -> Node | None:
        """A scalar that is below 1 if what is assumed on the way to these outputs holds; None if nothing is."""
        values = self.graph.values(outputs)
        peaks = []
        for x, limit in [peak for name, peak in self._peaks.items() if name in values]:
            largest = self._one("ReduceMax", [self._magnitude(x)], _SCALAR, keepdims=0)
            peaks.append(self.mul(largest, self.constant(1 / limit)))
        return self._one("Max", peaks, _SCALAR) if peaks else None

    def _to_be_rounded(self, x: Node, floats: Floats) -> Callable[[], Node] | None:
        """What makes x times 2^_scale, to be rounded; None where that is not done."""
        rounds = 0 < floats.mant_bits <= _MOST_MANT_BITS
        if not rounds or floats.top_exponent > _MOST_TOP_EXPONENT or self.bound(x) is None:
            return None
        scale = _scale(floats)

        @cache
        def scaled() -> Node:
            if scale == 0:
                return x
            if x.name in self._factors and self._can_be_scaled(x, scale):
                return self._product_times_two_to(x, scale)
            return self.mul(x, self.constant(math.ldexp(1.0, scale)))

        return scaled

    def _trims(self, value: Node, floats: Floats, cut: Callable[[float], Node] | None, low: float) -> Trimmed:
        """What is to be known of a value that was trimmed once."""
        if cut is None:
            return Trimmed(floats, cache(lambda: self.clip(value, -floats.largest, floats.largest)))
        return Trimmed(floats, cache(lambda: self._round_mantissa(cut(low), floats, low)), cut, low)

    def _round_mantissa(self, x: Node, floats: Floats, low: float) -> Node:
        """What `cut` gives, rounded to the floats' mantissa; 0 for what is too small."""
        scale = _scale(floats)
        x = self._without_small(x, math.ldexp(floats.smallest, scale), low)
        if scale == 0:
            return nearest(self, x, floats.mant_bits)
        # With few bits, 2^s x - (2^s x - x) is x rounded to 24 - s bits of mantissa. Close above a power of two the
        # difference in brackets lies below one, with a bit more, but what is that close is rounded to the power anyway.
        return self.sub(x, self.mul(x, self.constant(1 - math.ldexp(1.0, -scale))))

    def _without_small(self, x: Node, smallest: float, low: float) -> Node:
        """x, with 0 in place of what is smaller than a power of two."""
        below = float(np.nextafter(np.float32(smallest), np.float32(0)))
        if low >= 0:
            kept = self._one("ThresholdedRelu", [x], x, alpha=below)
        else:
            # Times `steep`, all from smallest / 2 to smallest is whole: the step from 0 to 1 lies between two floats.
            steep = 1 / (smallest - below)
            is_kept = self._one("HardSigmoid", [self._magnitude(x)], x, alpha=steep, beta=1 - steep * smallest)
            kept = self._one("Mul", [x, is_kept], x)
        return self._set_bound(kept, self.bound(x))

    def _magnitude(self, x: Node) -> Node:
        if self.never_negative(x):
            return x
        if x.name not in self._magnitudes:
            self._magnitudes[x.name] = self.abs(x)
        return self._magnitudes[x.name]

    def relu(self, x: Node) -> Node:
        if x.name in self._relus:  # ranges are read of what a ReLU makes, too
            return self._relus[x.name]
        before = self._trimmed.get(x.name)
        top = super().relu(x)
        self._relus[x.name] = top
        if before is not None and before.twice is None:
            self._trimmed[top.name] = before
        elif before is not None:
            self._note(top, replace(self._trims(top, before.floats, before.cut, 0.0), links=before.links))
        return top

    def max_pool(self, x: Node, geometry: PoolGeometry) -> Node:
        pool = partial(super().max_pool, geometry=geometry)
        top = pool(x)
        if not any(axis.outside for axis in Windows.of(x.shape[2:], geometry)):
            self._follow(x, top, pool)
        return top

    def reshape(self, x: Node, shape: Sequence[int]) -> Node:
        top = super().reshape(x, shape)
        self._follow(x, top, lambda value: super(FloatsOps, self).reshape(value, shape))
        return top

    def slice(self, x: Node, axis: int, start: int, stop: int) -> Node:
        take = partial(super().slice, axis=axis, start=start, stop=stop)
        top = take(x)
        self._follow(x, top, take)
        return top

    def concat(self, xs: Sequence[Node], axis: int) -> Node:
        top = super().concat(xs, axis)
        known = [self._trimmed.get(x.name) for x in xs]
        parts = [part for part in known if part is not None]
        if len(parts) < len(xs) or any(part.floats != parts[0].floats for part in parts):
            return top
        if all(part.twice is None for part in parts):
            self._trimmed[top.name] = parts[0]
            return top
        join = partial(super().concat, axis=axis)
        each = [cache(lambda x=x: x) if part.twice is None else part.twice for x, part in zip(xs, parts, strict=True)]
        links = max(part.links for part in parts) + 1
        self._note(top, Trimmed(parts[0].floats, cache(lambda: join([make() for make in each])), links=links))
        return top

    def _follow(self, x: Node, top: Node, move: Callable[[Node], Node]) -> None:
        """Note what is known of a top whose elements are some of x's."""
        before = self._trimmed.get(x.name)
        if before is None:
            return
        twice, cut = before.twice, before.cut
        if twice is None:
            self._trimmed[top.name] = before
        elif cut is None:
            self._note(top, replace(before, twice=cache(lambda: move(twice())), links=before.links + 1))
        else:
            moved = cache(lambda low: move(cut(low)))
            trims = self._trims(top, before.floats, moved, before.low)
            self._note(top, replace(trims, links=before.links + 1))

    def _note(self, x: Node, trimmed: Trimmed) -> None:
        """Remember what is known of x; functions that call too many others are called now, for Python's stack."""
        if trimmed.links >= MOST_LINKS and trimmed.twice is not None:
            trimmed.twice()
            trimmed = replace(trimmed, cut=None, links=0)
        self._trimmed[x.name] = trimmed


def _scale(floats: Floats) -> int:
    """The power of two that values are multiplied by before they are rounded: the bits to be dropped, if that helps."""
    return 23 - floats.mant_bits if floats.mant_bits <= _FEW_MANT_BITS else 0
