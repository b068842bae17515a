"""The ONNX backend that makes constants times powers of two, where nothing is lost by it."""

from __future__ import annotations

import math

import numpy as np

from ristretto_cli.backends.onnx_bounds import FAR_FROM_INFINITY, BoundedOps
from ristretto_cli.backends.onnx_graph import Node
from ristretto_cli.backends.onnx_integers import chunks
from ristretto_cli.ops import AnyArray, Grid

MOST_SHIFT = 60  # scales of larger magnitude could leave float32's range
_LEAST_NORMAL = 2.0**-126  # a float32 below it has fewer bits


class ScaledOps(BoundedOps):
    """BoundedOps that knows the grids of constants, and makes such that are a power of two as large."""

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        super().__init__(rng)
        self._constant_grids: dict[str, Grid] = {}
        self._scaled: dict[tuple[str, int], Node] = {}
        self._least_magnitudes: dict[str, float] = {}

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None, name: str = "") -> Node:
        value = super().constant(array, name=name)
        if grid is not None:
            self._constant_grids[value.name] = grid
        return value

    def _is_exact_times_two_to(self, constant: Node, exponent: int) -> bool:
        """Whether a constant can be multiplied by a power of two without a loss."""
        bound = self.bound(constant)
        if abs(exponent) > MOST_SHIFT or bound is None or math.ldexp(bound, exponent) >= FAR_FROM_INFINITY:
            return False
        return exponent >= 0 or math.ldexp(self._least_magnitude(constant), exponent) >= _LEAST_NORMAL

    def _least_magnitude(self, constant: Node) -> float:
        """The least magnitude of a constant's elements that are not 0; a step of its grid where it has one."""
        if constant.name not in self._least_magnitudes:
            grid = self._constant_grids.get(constant.name)
            array = self.graph.initializers[constant.name]
            least = least_magnitude(array) if grid is None else math.ldexp(1.0, max(-1000, min(1000, -grid.frac_bits)))
            self._least_magnitudes[constant.name] = least
        return self._least_magnitudes[constant.name]

    def _times_two_to(self, constant: Node, exponent: int) -> Node:
        """A constant times a power of two, made when it is needed."""
        if exponent == 0:
            return constant
        key = constant.name, exponent
        if key not in self._scaled:
            array, factor = self.graph.initializers[constant.name], np.float32(math.ldexp(1.0, exponent))
            self._scaled[key] = self.graph.deferred(constant.shape, lambda: array * factor)
        return self._scaled[key]


def least_magnitude(array: AnyArray) -> float:
    """The least magnitude of float32 elements that are not 0; infinity where all are.

    >>> least_magnitude(np.array([-0.5, 0.0, 2.0], np.float32))
    0.5
    """
    least = 2**32 - 1
    for rows in chunks(array):
        # Magnitudes are in the order of their bits; those of a zero, less one, are the largest there are.
        bits = array[rows].view(np.uint32) << np.uint32(1)
        least = int((bits - np.uint32(1)).min(initial=least))
    return math.inf if least == 2**32 - 1 else float(np.uint32((least + 1) >> 1).view(np.float32))
