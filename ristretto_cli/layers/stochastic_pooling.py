"""Pooling that draws one value of each window, with a probability in proportion to the value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Ops, V, pooled, show

MOST_CELLS = 1024  # of a window in training: the drawing weighs each against each


def expect(ops: Ops[V], x: V, kernel: Sequence[int], stride: Sequence[int], ceil: bool) -> V:
    """What is drawn on average: the sum of squares by the sum; 0 where the sum is not above 0."""
    pad = (0,) * len(kernel)
    # The means have the same divisor, so it does not matter.
    mean = ops.ave_pool(x, kernel=kernel, stride=stride, pad=pad, ceil=ceil)
    squares = ops.ave_pool(ops.mul(x, x), kernel=kernel, stride=stride, pad=pad, ceil=ceil)
    zero = ops.constant(0.0)
    return ops.where(ops.less(zero, mean), ops.div(squares, mean), zero)


def draw(ops: Ops[V], x: V, kernel: Sequence[int], stride: Sequence[int], ceil: bool) -> V:
    """One value of each window of x (N, C, H, W): the first, in reading order, at which the running sum
    reaches a random share of the window's sum; 0 where none does."""
    cells = math.prod(kernel)
    if cells > MOST_CELLS:
        raise LayerError(f"a window of {cells} cells is too large for pool STOCHASTIC in training")
    extent = pooled(x.shape[2:], kernel=kernel, stride=stride, pad=(0, 0), ceil=ceil)
    if min(extent) < 1:
        raise LayerError(f"its kernel {show(kernel)} is larger than the bottom {show(x.shape[2:])}")
    reach = [(w - 1) * s + k for w, s, k in zip(extent, stride, kernel, strict=True)]
    behind = [max(r - n, 0) for r, n in zip(reach, x.shape[2:], strict=True)]
    planes = ops.pad(ops.reshape(x, (math.prod(x.shape[:2]), 1, *x.shape[2:])), (0, 0, 0, 0), (0, 0, *behind))
    # A filter that is 1 at one cell takes that cell of every window.
    each = ops.constant(np.eye(cells, dtype=np.float32).reshape(cells, 1, *kernel))
    window = _conv(ops, planes, each, stride)
    up_to = ops.constant(np.tri(cells, dtype=np.float32).reshape(cells, cells, 1, 1))
    running = _conv(ops, window, up_to, (1, 1))
    share = ops.uniform((window.shape[0], 1, *window.shape[2:]))
    threshold = ops.mul(share, ops.slice(running, 1, cells - 1, cells))
    reached = ops.greater_equal(running, threshold)
    zero, one = ops.constant(0.0), ops.constant(1.0)
    count = _conv(ops, ops.where(reached, one, zero), up_to, (1, 1))
    first = ops.where(ops.equal(count, one), window, zero)
    drawn = ops.sum(ops.where(reached, first, zero), [1])
    return ops.reshape(drawn, (*x.shape[:2], *window.shape[2:]))


def _conv(ops: Ops[V], x: V, weight: V, stride: Sequence[int]) -> V:
    return ops.conv(x, weight, None, stride=stride, pad=(0, 0), dilation=(1, 1), group=1)
