"""Stochastic pooling: draws one value of each window, with probability proportional to the value."""

from __future__ import annotations

import math

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.ops import ConvGeometry, Ops, PoolGeometry, V, show

MAX_CELLS = 1024  # of a window in training: drawing compares all pairs


def expect(ops: Ops[V], x: V, geometry: PoolGeometry) -> V:
    """The expected value: the sum of squares divided by the sum; 0 if the sum is not above 0."""
    # The means have the same divisor, so it does not matter.
    mean = ops.ave_pool(x, geometry)
    squares = ops.ave_pool(ops.mul(x, x), geometry)
    zero = ops.constant(0.0)
    return ops.where(ops.less(zero, mean), ops.div(squares, mean), zero)


def draw(ops: Ops[V], x: V, geometry: PoolGeometry) -> V:
    """One value of each window of x (N, C, H, W): the first, in row-major order, at which the running sum
    reaches a random fraction of the window's sum; 0 if none does."""
    kernel, stride, cells = geometry.kernel, geometry.stride, math.prod(geometry.kernel)
    if cells > MAX_CELLS:
        raise LayerError(f"a window of {cells} cells is too large for pool STOCHASTIC in training")
    extent = geometry.pooled(x.shape[2:])
    if min(extent) < 1:
        raise LayerError(f"its kernel {show(kernel)} is larger than the bottom {show(x.shape[2:])}")
    reach = [(w - 1) * s + k for w, s, k in zip(extent, stride, kernel, strict=True)]
    after = [max(r - n, 0) for r, n in zip(reach, x.shape[2:], strict=True)]
    planes = ops.pad(ops.reshape(x, (math.prod(x.shape[:2]), 1, *x.shape[2:])), (0, 0, 0, 0), (0, 0, *after))
    # A filter that is 1 at one cell selects that cell of every window.
    each = ops.constant(np.eye(cells, dtype=np.float32).reshape(cells, 1, *kernel))
    window = ops.conv(planes, each, None, ConvGeometry.dense(2, stride=stride))
    up_to = ops.constant(np.tri(cells, dtype=np.float32).reshape(cells, cells, 1, 1))
    running = ops.conv(window, up_to, None, ConvGeometry.dense(2))
    share = ops.uniform((window.shape[0], 1, *window.shape[2:]))
    threshold = ops.mul(share, ops.slice(running, 1, cells - 1, cells))
    reached = ops.greater_equal(running, threshold)
    zero, one = ops.constant(0.0), ops.constant(1.0)
    count = ops.conv(ops.where(reached, one, zero), up_to, None, ConvGeometry.dense(2))
    first = ops.where(ops.equal(count, one), window, zero)
    drawn = ops.sum(ops.where(reached, first, zero), [1])
    return ops.reshape(drawn, (*x.shape[:2], *window.shape[2:]))
