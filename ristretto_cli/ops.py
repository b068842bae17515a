"""The primitives available to layers, with Caffe's semantics.

A layer is written once over `Ops`; each backend has its own kind of value: shapes only,
numpy arrays, nodes of an ONNX graph. Every value is float32, except the booleans
returned by `equal`, `less` and `greater_equal` and taken by `where`. Element-wise operations broadcast as
in numpy. All shapes are static.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = npt.NDArray[np.float32]
AnyArray: TypeAlias = npt.NDArray[Any]

DYNAMIC = -(2**31)  # an extent known only at run time, because it depends on the data; not -1, which users write
MAX_EXACT_INT = 2**24  # indices are float32 too, which holds all integers up to this one
_MAX_SHIFT = 256  # larger than the difference between any two grids


@dataclass(frozen=True)
class Grid:
    """The multiples of 2^-frac_bits from low * 2^-frac_bits to high * 2^-frac_bits; low <= 0 <= high.

    >>> Grid(4, -128, 127).largest
    8.0
    """

    frac_bits: int
    low: int
    high: int

    @property
    def largest(self) -> float:
        """The largest magnitude on the grid; infinity if a float64 cannot hold it."""
        try:
            return math.ldexp(max(-self.low, self.high), -self.frac_bits)
        except OverflowError:
            return math.inf

    def contains(self, other: Grid) -> bool:
        """Whether this grid has every number of another grid.

        >>> Grid(4, -128, 127).contains(Grid(3, 0, 63)), Grid(4, -128, 127).contains(Grid(3, 0, 64))
        (True, False)
        """
        finer = self.frac_bits - other.frac_bits
        return 0 <= finer <= _MAX_SHIFT and self.low <= other.low << finer and other.high << finer <= self.high


@dataclass(frozen=True)
class Floats:
    """Zero, and the numbers with exp_bits of exponent and mant_bits of mantissa after the leading one.

    There are no denormals and no codes for infinity and NaN: exponent 0 is an ordinary one, and so is the highest.

    >>> Floats(mant_bits=3, exp_bits=4).largest
    480.0
    """

    mant_bits: int
    exp_bits: int

    @property
    def bias(self) -> int:
        """The exponent bias."""
        return int(2.0 ** (self.exp_bits - 1) - 1)

    @property
    def top_exponent(self) -> int:
        """The exponent of the largest number."""
        return int(2**self.exp_bits - 1 - self.bias)

    @property
    def largest(self) -> float:
        """The largest number; infinity if it exceeds float32."""
        if self.top_exponent > 127:
            return math.inf
        return math.ldexp(2 - 2.0**-self.mant_bits, self.top_exponent)

    @property
    def smallest(self) -> float:
        """The smallest positive number that is normal in float32."""
        return 2.0 ** -min(self.bias, 126)


@dataclass(frozen=True)
class ConvGeometry:
    """The geometry of a convolution: one entry per spatial axis, and the number of groups.

    >>> ConvGeometry(stride=(2,), pad=(1,), dilation=(1,)).convolved((7,), (3,))
    (4,)
    """

    stride: Shape
    pad: Shape
    dilation: Shape
    group: int = 1

    @classmethod
    def dense(cls, axes: int, *, stride: Shape | None = None, group: int = 1) -> ConvGeometry:
        """A geometry without padding and dilation; stride 1 by default."""
        return cls(stride or (1,) * axes, (0,) * axes, (1,) * axes, group)

    def convolved(self, extent: Shape, kernel: Shape) -> Shape:
        """Spatial extents of a convolution's output; an entry below 1 means that the kernel does not fit."""
        return tuple(
            (n + 2 * p - (d * (k - 1) + 1)) // s + 1
            for n, k, s, p, d in zip(extent, kernel, self.stride, self.pad, self.dilation, strict=True)
        )

    def deconvolved(self, extent: Shape, kernel: Shape) -> Shape:
        """Spatial extents of a deconvolution's output."""
        return tuple(
            s * (n - 1) + d * (k - 1) + 1 - 2 * p
            for n, k, s, p, d in zip(extent, kernel, self.stride, self.pad, self.dilation, strict=True)
        )


@dataclass(frozen=True)
class PoolGeometry:
    """The geometry of pooling, one entry per spatial axis. ceil: round the number of windows up, not down."""

    kernel: Shape
    stride: Shape
    pad: Shape
    ceil: bool

    def pooled(self, extent: Shape) -> Shape:
        """Spatial extents of the output."""
        out = []
        for n, k, s, p in zip(extent, self.kernel, self.stride, self.pad, strict=True):
            span = n + 2 * p - k
            windows = (-(-span // s) if self.ceil else span // s) + 1
            # Caffe drops a last window that starts in the padding, but checks for it only if there is padding.
            if any(self.pad) and (windows - 1) * s >= n + p:
                windows -= 1
            out.append(windows)
        return tuple(out)


class Value(Protocol):
    """A backend's value; layers may use only its shape."""

    @property
    def shape(self) -> Shape: ...


V = TypeVar("V", bound=Value)


class Ops(Protocol[V]):
    """The interface of a backend. Spatial arguments have one entry per spatial axis."""

    def scope(self, name: str) -> AbstractContextManager[None]:
        """A context in which the names of recorded nodes begin with this one."""

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None) -> V:
        """An array, or a scalar of shape (), as a float32 value. grid: a grid that holds all its elements, if known."""

    # element by element, broadcasting
    def add(self, a: V, b: V) -> V: ...
    def sub(self, a: V, b: V) -> V: ...
    def mul(self, a: V, b: V) -> V: ...
    def div(self, a: V, b: V) -> V: ...
    def maximum(self, a: V, b: V) -> V: ...
    def pow(self, a: V, b: V) -> V: ...
    def abs(self, x: V) -> V: ...
    def exp(self, x: V) -> V: ...
    def log(self, x: V) -> V: ...
    def log2(self, x: V) -> V:
        """Base-2 logarithm, rounded correctly to float32: exact for powers of two."""

    def sqrt(self, x: V) -> V: ...
    def floor(self, x: V) -> V: ...
    def round(self, x: V) -> V:
        """To the nearest integer, ties to even."""

    def clip(self, x: V, low: float, high: float) -> V:
        """min(max(x, low), high); NaN gives high, as with CUDA's fmin and fmax."""

    def quantize_fixed(self, x: V, grid: Grid) -> V:
        """x rounded to the grid's step, ties to even, and saturated at its ends; NaN gives the upper one."""

    def quantize_float(self, x: V, floats: Floats) -> V:
        """x with its mantissa rounded to that of the floats, ties to even. Underflow gives +0. A value with too
        high an exponent, or NaN, gives the largest number; a value that only rounds up past it keeps the carry."""

    def straight_through(self, x: V, trimmed: V, within: tuple[float, float] | None = None) -> V:
        """trimmed, with a straight-through gradient to x on backends with gradients; if within, a lower and an upper
        end, is given, only where x is not beyond them."""

    def map_gradient(self, x: V, function: Callable[[V], V]) -> V:
        """x; on backends with gradients, the gradient that reaches it is replaced by the function of it."""

    def detach(self, x: V) -> V:
        """x as a constant: it passes no gradient on."""

    def relu(self, x: V) -> V: ...
    def softplus(self, x: V) -> V:
        """log(1 + exp(x)), accurate for large |x| too."""

    def sigmoid(self, x: V) -> V: ...
    def tanh(self, x: V) -> V: ...

    # comparisons return booleans, which only `where` takes
    def equal(self, a: V, b: V) -> V: ...
    def less(self, a: V, b: V) -> V: ...
    def greater_equal(self, a: V, b: V) -> V: ...
    def where(self, condition: V, a: V, b: V) -> V: ...

    # shapes
    def reshape(self, x: V, shape: Shape) -> V: ...
    def transpose(self, x: V, axes: Sequence[int]) -> V: ...
    def expand(self, x: V, shape: Shape) -> V:
        """Broadcast x to shape."""

    def concat(self, xs: Sequence[V], axis: int) -> V: ...
    def slice(self, x: V, axis: int, start: int, stop: int) -> V:
        """x[..., start:stop, ...] on one axis."""

    def pad(self, x: V, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> V:
        """x padded with a border; before and after have one entry per axis."""

    def gather(self, x: V, indices: V, axis: int) -> V:
        """x's entries along an axis, at indices truncated towards zero as by a cast in C. x (*A, K, *B),
        indices of any shape (*I) to (*A, *I, *B). An index below 0 or above K - 1 raises
        RistrettoError if the device checks it (the CPU does)."""

    def unfold(self, x: V, kernel: Shape, geometry: ConvGeometry) -> V:
        """im2col: the contents of conv's windows, ignoring groups. x (N, C, *S) to (N, C * prod(kernel), *S'),
        with S' as for conv; for each channel, the window's elements in row-major order."""

    # reductions; the reduced axes stay, with extent 1
    def sum(self, x: V, axes: Sequence[int]) -> V: ...
    def mean(self, x: V, axes: Sequence[int]) -> V: ...
    def max(self, x: V, axes: Sequence[int]) -> V: ...
    def top_k(self, x: V, k: int, axis: int) -> tuple[V, V]:
        """The k largest along an axis and their indices (as float32), largest first; of equals, the larger
        index first, as in Caffe's sort of (value, index) pairs."""

    # nets
    def matmul(self, a: V, b: V) -> V:
        """(..., M, K) by (..., K, N) to (..., M, N)."""

    def linear(self, x: V, weight: V, bias: V | None) -> V:
        """x (M, K), weight (N, K), bias (N) to x @ weight.T + bias, (M, N)."""

    def conv(self, x: V, weight: V, bias: V | None, geometry: ConvGeometry) -> V:
        """Cross-correlation. x (N, C, *S), weight (C', C / group, *K), bias (C') to (N, C', *S'), where
        S' = (S + 2 pad - (dilation (K - 1) + 1)) // stride + 1."""

    def deconv(self, x: V, weight: V, bias: V | None, geometry: ConvGeometry) -> V:
        """The transpose of conv. x (N, C, *S), weight (C, C' / group, *K), bias (C') to (N, C', *S'), where
        S' = stride (S - 1) + dilation (K - 1) + 1 - 2 pad."""

    def max_pool(self, x: V, geometry: PoolGeometry) -> V:
        """Maximum of each window. x (N, C, H, W) to (N, C, H', W') with extents of `geometry.pooled`; padding
        never wins; a window entirely outside gives -FLT_MAX."""

    def max_pool_with_index(self, x: V, geometry: PoolGeometry) -> tuple[V, V]:
        """max_pool, and the index of each maximum in its plane (h * W + w, as float32): of equals, the first;
        -1 for a window entirely outside."""

    def ave_pool(self, x: V, geometry: PoolGeometry) -> V:
        """Mean of each window. x (N, C, H, W) to (N, C, H', W') with extents of `geometry.pooled`; the divisor counts
        the padding, but nothing beyond it. A window entirely outside gives NaN (0 / 0) if it starts right after the
        image, else 0 (the count is negative)."""

    def lrn(self, x: V, *, size: int, alpha: float, beta: float, k: float) -> V:
        """x / (k + alpha / size * sum of squares over `size` neighbouring channels) ** beta. x (N, C, *S)."""

    def softmax(self, x: V, axis: int) -> V: ...
    def log_softmax(self, x: V, axis: int, min_value: float) -> V:
        """log(max(softmax, min_value)), min_value > 0. The gradient is that of log(softmax), without the maximum."""

    def standardize(self, x: V, eps: float) -> tuple[V, V, V]:
        """(x - mean) / sqrt(variance + eps) for each channel of x (N, C, ...); the means and the variances, detached
        from gradients, each (1, C, 1, ...)."""

    def affine(self, x: V, scale: V, shift: V) -> V:
        """x * scale + shift, of x's shape."""

    # planes of another size, regions, boxes
    def resize(self, x: V, extent: Sequence[int]) -> V:
        """Bilinear interpolation with aligned corners. x (N, C, H, W) to (N, C, *extent): element i of n
        is sampled at i (H - 1) / (n - 1) of the bottom, at 0 if n is 1."""

    def unpool(self, x: V, places: V, extent: Sequence[int]) -> V:
        """Each value stored at its place (h * W' + w) in a plane of zeros, the inverse of max_pool_with_index.
        x and places (N, C, H, W) to (N, C, *extent). Of values with the same place one is kept; those with a place
        outside the plane are dropped."""

    def roi_pool(self, x: V, rois: V, *, extent: Sequence[int], spatial_scale: float) -> V:
        """Maximum of each cell of each region. x (N, C, H, W), rois (R, 5) with rows of batch index, left, top,
        right, bottom to (R, C, *extent). Corners are multiplied by spatial_scale, rounded and inclusive; empty
        cells give 0."""

    def nms(self, boxes: V, scores: V, *, top_k: int, min_score: float, max_overlap: float) -> tuple[V, V, V]:
        """Greedy non-maximum suppression, separately for each image and class. boxes (N, 1 or C, P, 4) with rows of
        two corners, low and high; scores (N, C, P). Each result is (N, C, K), K = min(top_k, P): the K highest scores,
        largest first (of equals, the smaller index first); their indices as float32; and 1 for those kept,
        else 0. A box is kept if its score exceeds min_score and no kept box of higher score overlaps it by more than
        max_overlap (intersection over union)."""

    def uniform(self, shape: Shape) -> V:
        """Uniform random numbers in [0, 1), drawn in each run."""


def log_of_softmax(ops: Ops[V], x: V, axis: int, min_value: float) -> V:
    """log_softmax in terms of other primitives, for backends without gradients."""
    return ops.log(ops.maximum(ops.softmax(x, axis), ops.constant(min_value)))


def standardized(ops: Ops[V], x: V, eps: float) -> tuple[V, V, V]:
    """standardize in terms of other primitives, for backends without a better implementation."""
    axes = [axis for axis in range(len(x.shape)) if axis != 1]
    mean = ops.mean(x, axes)
    deviation = ops.sub(x, mean)
    variance = ops.mean(ops.mul(deviation, deviation), axes)
    return ops.div(deviation, ops.sqrt(ops.add(variance, ops.constant(eps)))), mean, variance


def show(shape: Sequence[int]) -> str:
    """A shape as shown in messages.

    >>> show((2, 3)), show((1, DYNAMIC)), show(())
    ('2x3', '1x?', 'scalar')
    """
    return "x".join("?" if extent == DYNAMIC else str(extent) for extent in shape) or "scalar"


def fits(shape: Sequence[int], known: Sequence[int]) -> bool:
    """Whether a shape agrees with an earlier one, in which extents may be DYNAMIC."""
    return len(shape) == len(known) and all(n in (extent, DYNAMIC) for extent, n in zip(shape, known, strict=True))


def broadcast(*shapes: Shape) -> Shape:
    """The common shape of element-wise operands."""
    return tuple(int(n) for n in np.broadcast_shapes(*shapes))
