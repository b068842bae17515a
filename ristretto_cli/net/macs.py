"""Counting of multiplications with parameters, by a backend that knows only shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ristretto_cli.backends.shapes import ShapeOps, Sized
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import ConvGeometry, Shape, Value


def macs_of(layer: Layer) -> int:
    """The multiply-accumulates of a layer for the whole batch: those of products with its parameters.

    These are convolutions and deconvolutions (positions in padding count) and matrix products, in any
    layer type; additions of biases and element-wise operations are not counted.
    """
    if layer.is_source or layer.on_host:
        return 0
    ops = _CountingOps()
    bottoms = [Sized(blob.shape) for blob in layer.bottoms]
    params = [_Parameter(param.shape) for param in layer.params]
    LAYERS.get(layer.type).forward(ops, layer, bottoms, params)
    return ops.macs


@dataclass(frozen=True)
class _Parameter(Sized):
    """A parameter or a part of one."""


class _CountingOps(ShapeOps):
    """ShapeOps that count products with parameters; other products only move or sum values."""

    def __init__(self) -> None:
        self.macs = 0

    def reshape(self, x: Value, shape: Shape) -> Sized:
        return _like(x, super().reshape(x, shape))

    def transpose(self, x: Value, axes: Sequence[int]) -> Sized:
        return _like(x, super().transpose(x, axes))

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Sized:
        return _like(x, super().slice(x, axis, start, stop))

    def matmul(self, a: Value, b: Value) -> Sized:
        top = super().matmul(a, b)
        self._count(top.shape, a.shape[-1], a, b)
        return top

    def linear(self, x: Value, weight: Value, bias: Value | None) -> Sized:
        top = super().linear(x, weight, bias)
        self._count(top.shape, weight.shape[1], weight)
        return top

    def conv(self, x: Value, weight: Value, bias: Value | None, geometry: ConvGeometry) -> Sized:
        top = super().conv(x, weight, bias, geometry)
        self._count(top.shape, math.prod(weight.shape[1:]), weight)
        return top

    def deconv(self, x: Value, weight: Value, bias: Value | None, geometry: ConvGeometry) -> Sized:
        top = super().deconv(x, weight, bias, geometry)
        # Each element of the bottom is spread over a window of each of its group's maps.
        self._count(x.shape, math.prod(weight.shape[1:]), weight)
        return top

    def _count(self, elements: Shape, each: int, *factors: Value) -> None:
        if any(isinstance(factor, _Parameter) for factor in factors):
            self.macs += math.prod(elements) * each


def _like(x: Value, result: Sized) -> Sized:
    return _Parameter(result.shape) if isinstance(x, _Parameter) else result
