"""Minifloats that are quantized as a layer's output and again as the next layer's input.

Quantizing once leaves values that were rounded up past the largest number where they are; the second time these become
that number. Both together are monotone, so a ReLU or a pooling in between can be computed before them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.backends import onnx_marks as marks
from ristretto_cli.backends.facts import Fact
from ristretto_cli.backends.graph_passes.graph_pass import Context, GraphPass, Guard, graph_pass, is_move
from ristretto_cli.backends.onnx_graph import Node, Tensor
from ristretto_cli.backends.scalable_products import can_scale_product, scaled_product
from ristretto_cli.formats.minifloat import nearest
from ristretto_cli.ops import Floats

_FEW_MANT_BITS = 10
_MAX_MANT_BITS = 22
_MAX_TOP_EXPONENT = 60


@dataclass(frozen=True)
class Once:
    """A value that was quantized to floats once.

    low: a number that it is not below. clipped: the tensor that the value was rounded from, times 2^_scale, saturated
    at `low` and the largest number; None if the rounding is the plain one. source: the same without saturation, if no
    pooling came after it. twice: the value quantized a second time.
    """

    floats: Floats
    low: float
    clipped: Tensor | None
    source: Tensor | None
    twice: Tensor


@graph_pass("fuse_minifloats", order=80)
class FuseMinifloats(GraphPass):
    """Minifloats that are quantized twice in a row are rounded once, by operations that assume exponents in range."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._once: dict[str, Once] = {}
        self._magnitudes: dict[str, Tensor] = {}
        self._ops = context.ops

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        if marks.is_mark(node, marks.QUANTIZE_FLOAT):
            return [self._quantized(node)]
        if node.op == "Concat":
            self._joined(node)
        elif node.op == "Relu" or is_move(node):
            found = self._once.get(node.input(0).name)
            if found is not None:
                self._once[node.output.name] = (
                    self._rectified(found, node) if node.op == "Relu" else self._moved(found, node)
                )
        return None

    def _quantized(self, node: Node) -> Tensor:
        x, floats = node.input(0), node.attributes["floats"]
        if self.facts[x].floats == floats:
            return x
        before = self._once.get(x.name)
        if before is not None and before.floats == floats:
            return before.twice
        low = 0.0 if self.facts[x].never_negative else -math.inf
        source = self._to_be_rounded(x, floats)
        if source is None:
            clipped = marks.saturate(self.graph, node.output, -floats.largest, floats.largest)
            self._once[node.output.name] = Once(floats, low, None, None, self._declare(clipped, floats, low))
            return node.output
        value = node.output
        if self.target.assumes_in_range:
            value = self._round_mantissa(source, floats, low)
            self.facts.declare(value, Fact(2 * floats.largest, low))
            limit = math.ldexp(1.0, floats.top_exponent + 1 + _scale(floats))
            self.context.guards.append(Guard(value, self._magnitude(source), limit))
        self._once[value.name] = self._from_source(source, floats, low)
        return value

    def _to_be_rounded(self, x: Tensor, floats: Floats) -> Tensor | None:
        """x times 2^_scale; None where that is not done."""
        rounds = 0 < floats.mant_bits <= _MAX_MANT_BITS
        if not rounds or floats.top_exponent > _MAX_TOP_EXPONENT or not self.facts[x].is_finite:
            return None
        scale = _scale(floats)
        if scale == 0:
            return x
        if can_scale_product(self.facts, x, scale):
            return scaled_product(self.graph, x, scale)
        return self._ops.mul(x, self.graph.number(math.ldexp(1.0, scale)))

    def _from_source(self, source: Tensor, floats: Floats, low: float) -> Once:
        largest = math.ldexp(floats.largest, _scale(floats))
        bounds = [self.graph.number(max(low, -largest)), self.graph.number(largest)]
        clipped = self.one("Clip", [source, *bounds], source)
        self.facts.declare(clipped, Fact(largest, low))
        return Once(floats, low, clipped, source, self._twice(clipped, floats, low))

    def _twice(self, clipped: Tensor, floats: Floats, low: float) -> Tensor:
        return self._declare(self._round_mantissa(clipped, floats, low), floats, low)

    def _declare(self, twice: Tensor, floats: Floats, low: float) -> Tensor:
        return self.facts.declare(twice, Fact(floats.largest, low, floats=floats))

    def _rectified(self, found: Once, node: Node) -> Once:
        if found.source is not None:
            return self._from_source(found.source, found.floats, 0.0)
        if found.clipped is None:
            twice = self._declare(self.again(node, found.twice), found.floats, 0.0)
            return replace(found, low=0.0, twice=twice)
        clipped = self.again(node, found.clipped)
        return replace(found, low=0.0, clipped=clipped, twice=self._twice(clipped, found.floats, 0.0))

    def _moved(self, found: Once, node: Node) -> Once:
        if found.clipped is None:
            twice = self._declare(self.again(node, found.twice), found.floats, found.low)
            return replace(found, twice=twice)
        clipped = self.again(node, found.clipped)
        return Once(found.floats, found.low, clipped, None, self._twice(clipped, found.floats, found.low))

    def _joined(self, node: Node) -> None:
        parts, floats = [], set()
        for x in node.inputs:
            if x is None:
                return
            found = self._once.get(x.name)
            parts.append(x if found is None else found.twice)
            floats.add(self.facts[parts[-1]].floats)
        (common, *others) = floats
        if others or common is None or self.facts[node.output].floats == common:
            return
        low = min(self.facts[part].low for part in parts)
        joined = self.one("Concat", parts, node.output, **node.attributes)
        self._once[node.output.name] = Once(common, low, None, None, self._declare(joined, common, low))

    def _round_mantissa(self, x: Tensor, floats: Floats, low: float) -> Tensor:
        """x, a number of the floats' range times 2^_scale, with the floats' mantissa; 0 where it is too small."""
        scale = _scale(floats)
        x = self._without_small(x, math.ldexp(floats.smallest, scale), low)
        if scale == 0:
            return nearest(self._ops, x, floats.mant_bits)
        # With few bits, 2^s x - (2^s x - x) is x rounded to 24 - s bits of mantissa. Just above a power of two the
        # difference in brackets is below one, with a bit more, but a number that close is rounded to the power anyway.
        return self._ops.sub(x, self._ops.mul(x, self.graph.number(1 - math.ldexp(1.0, -scale))))

    def _without_small(self, x: Tensor, smallest: float, low: float) -> Tensor:
        """x, with 0 for all that is smaller than a power of two."""
        below = float(np.nextafter(np.float32(smallest), np.float32(0)))
        if low >= 0:
            return self.one("ThresholdedRelu", [x], x, alpha=below)
        # Times `steep`, all from smallest / 2 to smallest is whole: the step from 0 to 1 lies between two floats.
        steep = 1 / (smallest - below)
        is_kept = self.one("HardSigmoid", [self._magnitude(x)], x, alpha=steep, beta=1 - steep * smallest)
        return self._ops.mul(x, is_kept)

    def _magnitude(self, x: Tensor) -> Tensor:
        if self.facts[x].never_negative:
            return x
        if x.name not in self._magnitudes:
            self._magnitudes[x.name] = self._ops.abs(x)
        return self._magnitudes[x.name]


def _scale(floats: Floats) -> int:
    """The power of two that values are multiplied by before they are rounded: the bits to be dropped, if that helps."""
    return 23 - floats.mant_bits if floats.mant_bits <= _FEW_MANT_BITS else 0
