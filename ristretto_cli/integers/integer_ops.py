"""The backend that records a net as a program over integers.

Layers run on it as on the others. An operation on integers that has an integer form records a step; any other gives a
value of which only the shape is known, and leaves a reason. `compiler.py` decides what that means for the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.backends.shapes import ShapeOps, Sized, sized
from ristretto_cli.integers import arithmetic
from ristretto_cli.integers.pointwise import Operation, affine_of, function_of, is_per_channel, of_rank, operation
from ristretto_cli.integers.program import (
    Affine,
    Clamp,
    Concat,
    Convolution,
    Deconvolution,
    InnerProduct,
    Maximum,
    MaxPool,
    Move,
    Multiply,
    Place,
    Requantization,
    Requantize,
    Reshape,
    Step,
    Sum,
    SumPool,
    Table,
    width_of,
)
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.integers.values import MOST_BITS, TABLE_BITS, Constant, Integers, Pointwise, Sums, Value
from ristretto_cli.layers.pooling import LOWEST
from ristretto_cli.ops import AnyArray, Array, ConvGeometry, Floats, Grid, PoolGeometry, Shape

_SHAPES = ShapeOps()
_NUMPY = numpy_ops(np.random.default_rng(0))  # the functions of Pointwise draw nothing
_MAX_SHIFT = MOST_BITS


class NoIntegerForm(Exception):
    """An operation on integers that has no integer form here: the reason, without a full stop, and a remedy."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@dataclass
class Recorded:
    """What was recorded. trims: the layers that quantize floats, and the places that they make, in order.

    reasons: for each layer that turned integers into floats, the first reason.
    """

    steps: list[Step] = field(default_factory=list)
    trims: list[tuple[str, Place]] = field(default_factory=list)
    reasons: dict[str, NoIntegerForm] = field(default_factory=dict)


@dataclass(frozen=True)
class _Aligned:
    """Places that, each times its factor, have the same unit, 2^-frac_bits / divisor. shape: of the first value."""

    places: tuple[Place, ...]
    factors: tuple[int, ...]
    shape: Shape
    frac_bits: int
    divisor: int

    def bounds(self) -> list[tuple[int, int]]:
        """The lowest and the highest integer of each, in that unit."""
        return [(p.low * f, p.high * f) for p, f in zip(self.places, self.factors, strict=True)]


class IntegerOps:
    """`Ops` that record integer steps. batch: the extent of the first axis of all blobs that images have.

    affine_bits: the fraction bits of what a channel's function gives if it is not quantized at once.
    """

    def __init__(self, batch: int, *, rounding: ShiftRounding, affine_bits: int) -> None:
        self.recorded = Recorded()
        self._batch = batch
        self._rounding = rounding
        self._affine_bits = affine_bits
        self._layer = ""
        self._names: set[str] = set()
        self._materialized: dict[int, tuple[Value, Integers]] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self._layer = name
        yield

    def constant(self, array: AnyArray | float, *, grid: Grid | None = None) -> Value:
        return Constant(np.asarray(array, np.float32), grid)

    # quantization

    def quantize_fixed(self, x: Value, grid: Grid) -> Value:
        if isinstance(x, Constant):
            return Constant(_NUMPY.quantize_fixed(x.array, grid), grid)
        if isinstance(x, Sized):
            if self._layer in self.recorded.reasons:  # what the layer computed, not what it reads
                return sized(x.shape)
            return self._try(lambda: self._input(x, grid), x.shape)
        return self._try(lambda: self._requantized(x, grid), x.shape)

    def quantize_float(self, x: Value, floats: Floats) -> Value:
        shape = _SHAPES.quantize_float(x, floats).shape
        return self._floats(shape, NoIntegerForm("it is trimmed to minifloats", "Trim it to fixed point."))

    def straight_through(self, x: Value, trimmed: Value, within: tuple[float, float] | None = None) -> Value:
        return trimmed

    def map_gradient(self, x: Value, function: Callable[[Value], Value]) -> Value:
        return x

    def detach(self, x: Value) -> Value:
        return x

    def _input(self, x: Sized, grid: Grid) -> Integers:
        if not self._is_batch(x.shape):
            raise NoIntegerForm("its first axis is not that of the images")
        _check_format(grid)
        place = self._place(f"{self._layer}_in", x.shape[1:], grid.frac_bits, grid.low, grid.high)
        self.recorded.trims.append((self._layer, place))
        return Integers(x.shape, place)

    def _requantized(self, x: Integers | Pointwise | Sums, grid: Grid) -> Integers:
        _check_format(grid)
        if isinstance(x, Sums):
            return self._product(x, grid)
        if isinstance(x, Pointwise):
            return self._table(x, grid)
        return self._fitted(x, grid)

    def _fitted(self, x: Integers, grid: Grid) -> Integers:
        place = x.place
        shift = place.frac_bits - grid.frac_bits
        if shift == 0 and place.divisor == 1 and grid.low <= place.low and place.high <= grid.high:
            return x
        _check_width(grid.low * place.divisor, grid.high * place.divisor, "its values")
        requantization = Requantization(shift, grid.low, grid.high, place.divisor)
        low, high = (arithmetic.requantized(end, requantization, self._rounding) for end in (place.low, place.high))
        y = self._place(place.name, place.shape, grid.frac_bits, low, high)
        self.recorded.steps.append(Requantize(place, y, requantization))
        return Integers(x.shape, y)

    # element by element

    def add(self, a: Value, b: Value) -> Value:
        return self._elementwise("add", a, b, lambda: self._sum([a, b], [1, 1]))

    def sub(self, a: Value, b: Value) -> Value:
        return self._elementwise("sub", a, b, lambda: self._sum([a, b], [1, -1]))

    def mul(self, a: Value, b: Value) -> Value:
        return self._elementwise("mul", a, b, lambda: self._multiply(a, b))

    def div(self, a: Value, b: Value) -> Value:
        return self._elementwise("div", a, b, None)

    def maximum(self, a: Value, b: Value) -> Value:
        return self._elementwise("maximum", a, b, lambda: self._maximum([a, b]))

    def equal(self, a: Value, b: Value) -> Value:
        return self._elementwise("equal", a, b, None)

    def less(self, a: Value, b: Value) -> Value:
        return self._elementwise("less", a, b, None)

    def greater_equal(self, a: Value, b: Value) -> Value:
        return self._elementwise("greater_equal", a, b, None)

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        shape = _SHAPES.where(condition, a, b).shape
        return self._pointwise(operation("where"), shape, [condition, a, b]) or self._floats(shape)

    def affine(self, x: Value, scale: Value, shift: Value) -> Value:
        return self.add(self.mul(x, scale), shift)

    def abs(self, x: Value) -> Value:
        return self._unary(operation("abs"), x)

    def sqrt(self, x: Value) -> Value:
        return Constant(_NUMPY.sqrt(x.array)) if isinstance(x, Constant) else self._floats(x.shape)

    def clip(self, x: Value, low: float, high: float) -> Value:
        if isinstance(x, Integers) and (ends := _on_grid(x.place, low, high)) is not None:
            return self._clamped(x, *ends)
        return self._unary(lambda ops, each: ops.clip(each, low, high), x)

    def relu(self, x: Value) -> Value:
        if isinstance(x, Sums):
            x = self._settled(x)
        if isinstance(x, Integers):
            return self._clamped(x, 0, x.place.high)
        return self._unary(operation("relu"), x)

    def _clamped(self, x: Integers, low: int, high: int) -> Integers:
        place = x.place
        low, high = (min(max(end, place.low), place.high) for end in (low, high))
        low, high = (low, high) if place.high >= low else (0, 0)
        if (low, high) == (place.low, place.high):
            return x
        y = self._like(place, low=low, high=high)
        self.recorded.steps.append(Clamp(place, y))
        return Integers(x.shape, y)

    def _elementwise(self, name: str, a: Value, b: Value, exact: Callable[[], Value] | None) -> Value:
        """The result by integers, if all operands are; by a function of the channel, if the others are constants."""
        shape = getattr(_SHAPES, name)(a, b).shape
        function = operation(name)
        if isinstance(a, Constant) and isinstance(b, Constant):
            return Constant(function(_NUMPY, a.array, b.array))
        if name == "add" and isinstance(a, Sums) and isinstance(b, Constant) and (biased := _biased(a, b)) is not None:
            return biased
        pointwise = self._pointwise(function, shape, [a, b], name)
        if pointwise is not None:
            return pointwise
        if exact is None or isinstance(a, Sized) or isinstance(b, Sized):
            return self._floats(shape)
        return self._try(exact, shape)

    def _unary(self, function: Operation, x: Value) -> Value:
        return self._pointwise(function, x.shape, [x]) or self._floats(x.shape)

    def _pointwise(self, function: Operation, shape: Shape, operands: Sequence[Value], name: str = "") -> Value | None:
        """A function of one place and of constants of its channels; None if the operands are something else."""
        operands = [self._settled(each) if isinstance(each, Sums) else each for each in operands]
        if all(isinstance(each, Constant) for each in operands):
            arrays = [each.array for each in operands if isinstance(each, Constant)]
            return Constant(np.asarray(function(_NUMPY, *arrays)))
        inner = [each for each in operands if isinstance(each, (Integers, Pointwise))]
        places = {id(each.place) for each in inner}
        if len(places) != 1 or any(isinstance(each, Sized) for each in operands):
            return None
        if len(inner) > 1 and all(isinstance(each, Integers) for each in inner):
            return None  # a sum or a product of a place with itself has an integer form
        place = inner[0].place
        if shape != inner[0].shape or any(
            not is_per_channel(each.shape, shape) for each in operands if isinstance(each, Constant)
        ):
            return None
        parts = [function_of(each) for each in operands]
        layers = tuple(dict.fromkeys([name for each in inner if isinstance(each, Pointwise) for name in each.layers]))
        scale, shift = affine_of(name, operands)
        return Pointwise(
            shape,
            place,
            lambda ops, x: function(ops, *(part(ops, x) for part in parts)),
            tuple(dict.fromkeys([*layers, self._layer])),
            scale,
            shift,
        )

    # sums and products of places

    def _sum(self, terms: Sequence[Value], signs: Sequence[int]) -> Value:
        aligned = self._aligned(terms)
        factors = tuple(factor * sign for factor, sign in zip(aligned.factors, signs, strict=True))
        ends = [sorted((p.low * f, p.high * f)) for p, f in zip(aligned.places, factors, strict=True)]
        low, high = (sum(end[i] for end in ends) for i in (0, 1))
        y = self._common(aligned, low, high)
        self.recorded.steps.append(Sum(aligned.places, y, factors))
        return Integers(aligned.shape, y)

    def _maximum(self, terms: Sequence[Value]) -> Value:
        aligned = self._aligned(terms)
        low, high = (max(ends) for ends in zip(*aligned.bounds(), strict=True))
        y = self._common(aligned, low, high)
        self.recorded.steps.append(Maximum(aligned.places, y, aligned.factors))
        return Integers(aligned.shape, y)

    def _multiply(self, a: Value, b: Value) -> Value:
        x, y = self._settled(a), self._settled(b)
        if x.shape != y.shape:
            raise NoIntegerForm("its bottoms have different shapes")
        ends = [i * j for i in (x.place.low, x.place.high) for j in (y.place.low, y.place.high)]
        bits = x.place.frac_bits + y.place.frac_bits
        top = self._place(
            self._layer, x.place.shape, bits, min(ends), max(ends), divisor=x.place.divisor * y.place.divisor
        )
        self.recorded.steps.append(Multiply((x.place, y.place), top))
        return Integers(x.shape, top)

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        shape = _SHAPES.concat(xs, axis).shape
        axis %= len(shape)
        if all(isinstance(x, Constant) for x in xs):
            return Constant(np.concatenate([x.array for x in xs if isinstance(x, Constant)], axis))
        if any(isinstance(x, (Constant, Sized)) for x in xs):
            return self._floats(shape)
        return self._try(lambda: self._joined(xs, axis, shape), shape)

    def _joined(self, xs: Sequence[Value], axis: int, shape: Shape) -> Value:
        if axis == 0:
            raise NoIntegerForm("it joins images")
        aligned = self._aligned(xs, same_shape=False)
        lows, highs = zip(*aligned.bounds(), strict=True)
        y = replace(self._common(aligned, min(lows), max(highs)), shape=shape[1:])
        self.recorded.steps.append(Concat(aligned.places, y, aligned.factors, axis - 1))
        return Integers(shape, y)

    def _aligned(self, terms: Sequence[Value], *, same_shape: bool = True) -> _Aligned:
        """The terms as places of one unit."""
        values = [self._term(each) for each in terms]
        shapes = {value.shape for value, _ in values}
        if same_shape and len(shapes) > 1:
            raise NoIntegerForm("its bottoms have different shapes")
        places = [value.place for value, _ in values]
        bits = max(p.frac_bits - e for p, (_, e) in zip(places, values, strict=True))
        divisor = math.lcm(*(place.divisor for place in places))
        factors = []
        for place, (_, exponent) in zip(places, values, strict=True):
            shift = bits - place.frac_bits + exponent
            if shift > _MAX_SHIFT:
                raise NoIntegerForm(f"its terms have units that differ by 2^{shift}")
            factors.append((divisor // place.divisor) << shift)
        return _Aligned(tuple(places), tuple(factors), values[0][0].shape, bits, divisor)

    def _term(self, value: Value) -> tuple[Integers, int]:
        """A term of a sum as a place times 2^exponent."""
        if isinstance(value, Pointwise) and value.scale is not None and value.shift is not None:
            # A coefficient of an Eltwise layer.
            scale = set(np.unique(value.scale).tolist())
            if len(scale) == 1 and not value.shift.any():
                mantissa, exponent = math.frexp(scale.pop())
                if mantissa == 0.5:
                    return Integers(value.shape, value.place), exponent - 1
        return self._settled(value), 0

    def _common(self, aligned: _Aligned, low: int, high: int) -> Place:
        """A place in the unit of aligned places."""
        shape = aligned.places[0].shape
        return self._place(self._layer, shape, aligned.frac_bits, low, high, divisor=aligned.divisor)

    # products with weights

    def conv(self, x: Value, weight: Value, bias: Value | None, geometry: ConvGeometry) -> Value:
        shape = _SHAPES.conv(x, weight, bias, geometry).shape
        return self._sums(Convolution, x, weight, bias, shape, geometry)

    def deconv(self, x: Value, weight: Value, bias: Value | None, geometry: ConvGeometry) -> Value:
        shape = _SHAPES.deconv(x, weight, bias, geometry).shape
        return self._sums(Deconvolution, x, weight, bias, shape, geometry)

    def linear(self, x: Value, weight: Value, bias: Value | None) -> Value:
        return self._sums(InnerProduct, x, weight, bias, _SHAPES.linear(x, weight, bias).shape, None)

    def matmul(self, a: Value, b: Value) -> Value:
        shape = _SHAPES.matmul(a, b).shape
        if isinstance(b, Constant) and len(b.shape) == 2:
            return self._sums(InnerProduct, a, Constant(b.array.T, b.grid), None, shape, None)
        return self._floats(shape)

    def _sums(
        self, kind: type, x: Value, weight: Value, bias: Value | None, shape: Shape, geometry: ConvGeometry | None
    ) -> Value:
        if isinstance(x, (Sized, Constant)):
            return self._floats(shape)
        if not isinstance(weight, Constant) or not isinstance(bias, (Constant, type(None))):
            return self._floats(shape, NoIntegerForm("its weights depend on the input"))
        if weight.grid is None:
            return self._floats(shape, NoIntegerForm("its weights are not trimmed to fixed point", _TRIM))
        if bias is not None and bias.grid is None:
            return self._floats(shape, NoIntegerForm("its biases are not trimmed to fixed point", _TRIM))
        if not self._is_batch(shape) or not self._is_batch(x.shape):
            return self._floats(shape, NoIntegerForm("its first axis is not that of the images"))
        weights = weight.integers()
        grid, bias_grid = weight.grid, None if bias is None else bias.grid

        def sums() -> Value:
            for each in filter(None, (grid, bias_grid)):
                _check_format(each)
            place = self._settled(x).place
            if place.divisor != 1:
                raise NoIntegerForm("its input is a mean that is not quantized", _TRIM)
            biases = None if bias is None else bias.integers().astype(np.int64)
            return Sums(shape, self._layer, kind, place, weights, grid, biases, bias_grid, geometry)

        return self._try(sums, shape)

    def _product(self, sums: Sums, grid: Grid | None) -> Integers:
        """The step for sums. grid: of the result; None if it is not quantized."""
        frac_bits = sums.x.frac_bits + sums.weights_grid.frac_bits
        biases, up = sums.biases, 0
        if biases is not None and sums.biases_grid is not None:
            shift = frac_bits - sums.biases_grid.frac_bits
            up = max(0, -shift)
            largest = int(np.abs(biases).max(initial=0))
            if up > _MAX_SHIFT or largest << max(0, min(shift, _MAX_SHIFT + 1)) >= 2**MOST_BITS:
                raise NoIntegerForm(f"its biases and its sums have units that differ by 2^{abs(shift)}", _NARROW)
            biases = biases << max(0, shift) if largest else biases
            frac_bits += up
        low, high = arithmetic.bounds_of_sums(sums, biases, up)
        _check_width(low, high, "its sums")
        requantization = None
        if grid is None:
            y = self._place(sums.layer, sums.shape[1:], frac_bits, low, high)
        else:
            requantization = Requantization(frac_bits - grid.frac_bits, grid.low, grid.high)
            ends = [arithmetic.requantized(end, requantization, self._rounding) for end in (low, high)]
            y = self._place(sums.layer, sums.shape[1:], grid.frac_bits, *ends)
        settings = {} if sums.geometry is None else {"geometry": sums.geometry}
        self.recorded.steps.append(
            sums.kind(
                layer=sums.layer,
                x=sums.x,
                y=y,
                weights=sums.weights,
                biases=biases,
                up=up,
                low=low,
                high=high,
                frac_bits=frac_bits,
                weights_bits=width_of(sums.weights_grid.low, sums.weights_grid.high),
                weights_frac_bits=sums.weights_grid.frac_bits,
                requantization=requantization,
                **settings,
            )
        )
        return Integers(sums.shape, y)

    # pooling

    def max_pool(self, x: Value, geometry: PoolGeometry) -> Value:
        shape = _SHAPES.max_pool(x, geometry).shape
        if isinstance(x, (Sized, Constant)):
            return self._floats(shape)
        return self._try(lambda: self._max_pooled(self._settled(x), geometry, shape), shape)

    def _max_pooled(self, x: Integers, geometry: PoolGeometry, shape: Shape) -> Value:
        sizes = arithmetic.window_sizes(geometry, x.place.shape[1:], padding=False)
        if (sizes <= 0).any():
            raise NoIntegerForm("a window lies entirely outside its bottom")
        y = replace(self._like(x.place), shape=shape[1:])
        self.recorded.steps.append(MaxPool(x.place, y, geometry))
        return Integers(shape, y)

    def ave_pool(self, x: Value, geometry: PoolGeometry) -> Value:
        shape = _SHAPES.ave_pool(x, geometry).shape
        if isinstance(x, (Sized, Constant)):
            return self._floats(shape)
        return self._try(lambda: self._sum_pooled(self._settled(x), geometry, shape), shape)

    def _sum_pooled(self, x: Integers, geometry: PoolGeometry, shape: Shape) -> Value:
        place = x.place
        sizes = arithmetic.window_sizes(geometry, place.shape[1:], padding=True)
        if (sizes <= 0).any():
            raise NoIntegerForm("a window lies entirely outside its bottom")
        common = math.lcm(*(int(size) for size in np.unique(sizes)))
        factors = common // sizes
        twos = (common & -common).bit_length() - 1
        most = int((sizes * factors).max())
        low, high = min(place.low, 0) * most, max(place.high, 0) * most
        y = self._place(
            self._layer, shape[1:], place.frac_bits + twos, low, high, divisor=place.divisor * (common >> twos)
        )
        self.recorded.steps.append(SumPool(place, y, geometry, factors))
        return Integers(shape, y)

    # positions

    def reshape(self, x: Value, shape: Shape) -> Value:
        shape = _SHAPES.reshape(x, shape).shape
        if isinstance(x, Constant):
            return Constant(x.array.reshape(shape), x.grid)
        if isinstance(x, Sized):
            return sized(shape)
        if not self._is_batch(shape):
            return self._floats(shape, NoIntegerForm("its first axis is not that of the images"))
        if isinstance(x, Pointwise) and len(shape) > 1 and len(x.shape) > 1 and shape[1] == x.shape[1]:
            return replace(x, shape=shape, place=self._reshaped(x.place, shape[1:]), function=of_rank(x, shape))
        return self._try(lambda: Integers(shape, self._reshaped(self._settled(x).place, shape[1:])), shape)

    def _reshaped(self, place: Place, shape: Shape) -> Place:
        if place.shape == shape:
            return place
        y = replace(place, name=self._free(f"{place.name}_reshaped"), shape=shape)
        self.recorded.steps.append(Reshape(place, y))
        return y

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        shape = _SHAPES.transpose(x, axes).shape
        return self._moved(x, shape, lambda array: np.transpose(array, axes))

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Value:
        shape = _SHAPES.slice(x, axis, start, stop).shape
        within = [slice(None)] * len(shape)
        within[axis] = slice(start, stop)
        return self._moved(x, shape, lambda array: array[tuple(within)])

    def pad(self, x: Value, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Value:
        shape = _SHAPES.pad(x, before, after, value).shape
        widths = list(zip(before, after, strict=True))
        if isinstance(x, Constant):
            return Constant(np.pad(x.array, widths, constant_values=value))
        if value not in (0.0, LOWEST):
            return self._floats(shape)
        return self._moved(x, shape, lambda array: np.pad(array, widths, constant_values=-1), lowest=value == LOWEST)

    def expand(self, x: Value, shape: Shape) -> Value:
        shape = _SHAPES.expand(x, shape).shape
        if isinstance(x, Constant):
            return Constant(np.ascontiguousarray(np.broadcast_to(x.array, shape)), x.grid)
        return self._moved(x, shape, lambda array: np.broadcast_to(array, (array.shape[0], *shape[1:])))

    def gather(self, x: Value, indices: Value, axis: int) -> Value:
        shape = _SHAPES.gather(x, indices, axis).shape
        if not isinstance(indices, Constant):
            return self._floats(shape)
        rows = indices.array.astype(np.int64)
        return self._moved(x, shape, lambda array: np.take(array, rows, axis))

    def _moved(self, x: Value, shape: Shape, move: Callable[[AnyArray], AnyArray], *, lowest: bool = False) -> Value:
        """The elements of x at other positions. move: does that with an array of one image, (1, ...)."""
        if isinstance(x, Constant):
            return Constant(np.ascontiguousarray(np.broadcast_to(move(x.array), shape)), x.grid)
        if isinstance(x, Sized):
            return sized(shape)
        return self._try(lambda: self._at_other_positions(self._settled(x), shape, move, lowest=lowest), shape)

    def _at_other_positions(
        self, x: Integers, shape: Shape, move: Callable[[AnyArray], AnyArray], *, lowest: bool
    ) -> Value:
        place = x.place
        indices = np.arange(math.prod(place.shape), dtype=np.int32).reshape(1, *place.shape)
        moved = np.asarray(move(indices))
        if not self._is_batch(shape) or moved.shape != (1, *shape[1:]):
            raise NoIntegerForm("it moves elements between images")
        fill = place.low if lowest else 0
        y = replace(self._like(place, low=min(place.low, fill), high=max(place.high, fill)), shape=shape[1:])
        self.recorded.steps.append(Move(place, y, np.ascontiguousarray(moved[0]), fill))
        return Integers(shape, y)

    # operations without an integer form

    def pow(self, a: Value, b: Value) -> Value:
        shape = _SHAPES.pow(a, b).shape
        if isinstance(a, Constant) and isinstance(b, Constant):
            return Constant(_NUMPY.pow(a.array, b.array))
        return self._floats(shape)

    def exp(self, x: Value) -> Value:
        return self._constant_or_floats(_NUMPY.exp, x)

    def log(self, x: Value) -> Value:
        return self._constant_or_floats(_NUMPY.log, x)

    def log2(self, x: Value) -> Value:
        return self._constant_or_floats(_NUMPY.log2, x)

    def floor(self, x: Value) -> Value:
        return self._constant_or_floats(_NUMPY.floor, x)

    def round(self, x: Value) -> Value:
        return self._constant_or_floats(_NUMPY.round, x)

    def softplus(self, x: Value) -> Value:
        return self._floats(x.shape)

    def sigmoid(self, x: Value) -> Value:
        return self._floats(x.shape)

    def tanh(self, x: Value) -> Value:
        return self._floats(x.shape)

    def sum(self, x: Value, axes: Sequence[int]) -> Value:
        return self._floats(_SHAPES.sum(x, axes).shape)

    def mean(self, x: Value, axes: Sequence[int]) -> Value:
        return self._floats(_SHAPES.mean(x, axes).shape)

    def max(self, x: Value, axes: Sequence[int]) -> Value:
        return self._floats(_SHAPES.max(x, axes).shape)

    def top_k(self, x: Value, k: int, axis: int) -> tuple[Value, Value]:
        first, second = _SHAPES.top_k(x, k, axis)
        return self._floats(first.shape), sized(second.shape)

    def unfold(self, x: Value, kernel: Shape, geometry: ConvGeometry) -> Value:
        return self._floats(_SHAPES.unfold(x, kernel, geometry).shape)

    def max_pool_with_index(self, x: Value, geometry: PoolGeometry) -> tuple[Value, Value]:
        shape = _SHAPES.max_pool(x, geometry).shape
        return self._floats(shape), sized(shape)

    def lrn(self, x: Value, *, size: int, alpha: float, beta: float, k: float) -> Value:
        return self._floats(_SHAPES.lrn(x, size=size, alpha=alpha, beta=beta, k=k).shape)

    def softmax(self, x: Value, axis: int) -> Value:
        return self._floats(_SHAPES.softmax(x, axis).shape)

    def log_softmax(self, x: Value, axis: int, min_value: float) -> Value:
        return self._floats(_SHAPES.softmax(x, axis).shape)

    def standardize(self, x: Value, eps: float) -> tuple[Value, Value, Value]:
        found = _SHAPES.standardize(x, eps)
        reason = NoIntegerForm("it normalizes by the statistics of each batch", "Set use_global_stats: true.")
        return self._floats(found[0].shape, reason), sized(found[1].shape), sized(found[2].shape)

    def resize(self, x: Value, extent: Sequence[int]) -> Value:
        return self._floats(_SHAPES.resize(x, extent).shape)

    def unpool(self, x: Value, places: Value, extent: Sequence[int]) -> Value:
        return self._floats(_SHAPES.unpool(x, places, extent).shape)

    def roi_pool(self, x: Value, rois: Value, *, extent: Sequence[int], spatial_scale: float) -> Value:
        return self._floats(_SHAPES.roi_pool(x, rois, extent=extent, spatial_scale=spatial_scale).shape)

    def nms(
        self, boxes: Value, scores: Value, *, top_k: int, min_score: float, max_overlap: float
    ) -> tuple[Value, Value, Value]:
        found = _SHAPES.nms(boxes, scores, top_k=top_k, min_score=min_score, max_overlap=max_overlap)
        first, second, third = (sized(each.shape) for each in found)
        return self._floats(first.shape), second, third

    def uniform(self, shape: Shape) -> Value:
        reason = NoIntegerForm("it draws random numbers", "Remove rounding_scheme: STOCHASTIC.")
        return self._floats(_SHAPES.uniform(shape).shape, reason)

    # what the operations share

    def _constant_or_floats(self, function: Callable[[Array], AnyArray], x: Value) -> Value:
        return Constant(function(x.array)) if isinstance(x, Constant) else self._floats(x.shape)

    def _floats(self, shape: Shape, why: NoIntegerForm | None = None) -> Value:
        """A value of which only the shape is known. why: if it comes from integers."""
        if self._layer not in self.recorded.reasons:
            self.recorded.reasons[self._layer] = why or NoIntegerForm("")
        elif why is not None and not self.recorded.reasons[self._layer].reason:
            self.recorded.reasons[self._layer] = why
        return sized(shape)

    def _try(self, record: Callable[[], Value], shape: Shape) -> Value:
        """What `record` gives; floats, and none of its steps, if it has no integer form."""
        count = len(self.recorded.steps)
        try:
            return record()
        except NoIntegerForm as reason:
            del self.recorded.steps[count:]
            return self._floats(shape, reason)

    def settled(self, value: Value) -> Integers | None:
        """The value as a place, with the steps that it needs; None if it has none."""
        try:
            return self._settled(value)
        except NoIntegerForm:
            return None

    def _settled(self, value: Value) -> Integers:
        if isinstance(value, Integers):
            return value
        known = self._materialized.get(id(value))
        if known is not None:
            return known[1]
        if isinstance(value, Sums):
            found = self._product(value, None)
        elif isinstance(value, Pointwise):
            found = self._table(value, None)
        else:
            raise NoIntegerForm("one of its bottoms is not quantized")
        self._materialized[id(value)] = (value, found)
        return found

    def _table(self, value: Pointwise, grid: Grid | None) -> Integers:
        """The step for a function of each channel. grid: of the result; None: affine_bits of fraction."""
        place = value.place
        if width_of(place.low, place.high) > TABLE_BITS or place.divisor != 1:
            wide = self._affine_step(value)
            return wide if grid is None else self._fitted(wide, grid)
        x = np.ldexp(np.arange(place.low, place.high + 1, dtype=np.float64), -place.frac_bits).astype(np.float32)
        found = np.asarray(value.function(_NUMPY, x.reshape(-1, *(1,) * (len(value.shape) - 1))), np.float64)
        if not np.isfinite(found).all():
            raise NoIntegerForm("it gives infinity or NaN")
        entries = found.reshape(len(x), -1).T
        frac_bits = self._affine_bits if grid is None else grid.frac_bits
        if grid is None:
            entries = np.rint(np.ldexp(entries, frac_bits))
            if float(np.abs(entries).max(initial=0)) >= 2.0**MOST_BITS:
                raise NoIntegerForm("its values are too large", _NARROW)
        else:
            entries = arithmetic.rounded(np.ldexp(entries, frac_bits), self._rounding).clip(grid.low, grid.high)
        integers = entries.astype(np.int64)
        low, high = int(integers.min()), int(integers.max())
        requantization = None if grid is None else Requantization(0, grid.low, grid.high)
        y = self._place(value.layers[-1], place.shape, frac_bits, low, high)
        self.recorded.steps.append(Table(value.layers, place, y, integers, requantization, value.function))
        return Integers(value.shape, y)

    def _affine_step(self, value: Pointwise) -> Integers:
        if value.scale is None or value.shift is None:
            bits = width_of(value.place.low, value.place.high)
            raise NoIntegerForm(
                f"a table of its input of {bits} bits is too large", f"Use activations of at most {TABLE_BITS} bits."
            )
        place, bits = value.place, self._affine_bits
        scale, shift = np.ldexp(value.scale, bits), np.ldexp(value.shift, bits + place.frac_bits) * place.divisor
        if float(max(np.abs(scale).max(), np.abs(shift).max())) >= 2.0**MOST_BITS:
            raise NoIntegerForm("its factors are too large", _NARROW)
        multipliers, offsets = (np.rint(each).astype(np.int64) for each in (scale, shift))
        ends = [int(m) * end + int(o) for m, o in np.broadcast(multipliers, offsets) for end in (place.low, place.high)]
        y = self._place(
            value.layers[-1], place.shape, place.frac_bits + bits, min(ends), max(ends), divisor=place.divisor
        )
        self.recorded.steps.append(Affine(value.layers, place, y, multipliers, offsets, value.function))
        return Integers(value.shape, y)

    def _is_batch(self, shape: Shape) -> bool:
        return len(shape) > 0 and shape[0] == self._batch

    def _place(self, name: str, shape: Shape, frac_bits: int, low: int, high: int, *, divisor: int = 1) -> Place:
        _check_width(low, high, "its values")
        return Place(self._free(name), shape, frac_bits, low, high, divisor)

    def _like(self, place: Place, *, low: int | None = None, high: int | None = None) -> Place:
        """A place in the format of another."""
        low, high = place.low if low is None else low, place.high if high is None else high
        return replace(place, name=self._free(self._layer), low=low, high=high)

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}@{number}"
        self._names.add(found)
        return found


_TRIM = "Trim it to fixed point with `ristretto quantize`."
_NARROW = "Use narrower widths."


def _check_width(low: int, high: int, what: str) -> None:
    bits = width_of(min(low, 0), max(high, 0))
    if bits > MOST_BITS:
        raise NoIntegerForm(f"{what} need {bits} bits, more than {MOST_BITS}", _NARROW)


def _check_format(grid: Grid) -> None:
    bits = width_of(grid.low, grid.high)
    if bits > MOST_BITS:
        raise NoIntegerForm(f"a format of {bits} bits is too wide", f"Use at most {MOST_BITS} bits.")
    if abs(grid.frac_bits) > 300:
        raise NoIntegerForm(f"a fractional length of {grid.frac_bits} is out of range", "Use -300 to 300.")


def _on_grid(place: Place, low: float, high: float) -> tuple[int, int] | None:
    """The ends as integers of a place, if they are on its grid."""
    scaled = [Fraction(end) * Fraction(2) ** place.frac_bits * place.divisor for end in (low, high)]
    if any(end.denominator != 1 for end in scaled):
        return None
    return int(scaled[0]), int(scaled[1])


def _biased(sums: Sums, constant: Constant) -> Sums | None:
    """Sums with a constant as their biases, if it can be."""
    count = sums.weights.shape[0]
    if sums.kind is not InnerProduct or sums.biases is not None or constant.grid is None or constant.shape != (count,):
        return None
    return replace(sums, biases=constant.integers().astype(np.int64), biases_grid=constant.grid)
