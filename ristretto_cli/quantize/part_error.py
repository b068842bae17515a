"""The error that a number format makes in a part of a layer: saturation, underflow, noise, and better formats."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import NumberFormat, Rounding
from ristretto_cli.ops import AnyArray, Array

_BINS = 64
_SAMPLE_SIZE = 2**14
_WIDEST = 24  # bits; more than float32 has are of no use
_SHORTER = 6  # integer bits below those that hold the largest value
_EXPONENT_BITS = range(1, 9)


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width from low to high. counts: of a sample of the values."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class PartError:
    """The values of a part of a layer in the float net, and the error of its format on them.

    low, high: the range of the values. format_low, format_high: the ends of the format. clipped: the share of values
    beyond these ends. zeroed: the share of nonzero values that become 0. sqnr: the signal to quantization noise ratio
    in dB; infinite without noise. bits_needed: the fewest bits that give the wanted ratio at the best position of the
    binary point, None if unknown. best: of the formats with the same bits, that with the least noise on a sample, and
    best_sqnr its ratio.
    """

    low: float
    high: float
    format_low: float
    format_high: float
    clipped: float
    zeroed: float
    sqnr: float
    histogram: Histogram
    bits_needed: int | None
    best: NumberFormat | None
    best_sqnr: float


@dataclass(frozen=True)
class Sums:
    """Sums over the values of a part. size: their number; nonzero, clipped, zeroed: of those; signal and noise: sums of
    squares. low, high: their range."""

    size: float = 0.0
    nonzero: float = 0.0
    clipped: float = 0.0
    zeroed: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.size + other.size,
            self.nonzero + other.nonzero,
            self.clipped + other.clipped,
            self.zeroed + other.zeroed,
            self.signal + other.signal,
            self.noise + other.noise,
            min(self.low, other.low),
            max(self.high, other.high),
        )


def ends_of(number_format: NumberFormat) -> tuple[float, float]:
    """The lowest and the highest number of a format."""
    grid = number_format.grid()
    lowest = -number_format.largest if grid is None else -replace(grid, high=0).largest
    return lowest, number_format.largest


def sums_of(values: AnyArray, quantized: AnyArray, number_format: NumberFormat) -> Sums:
    """The sums over some values in memory."""
    low, high = ends_of(number_format)
    exact = values.astype(np.float64)
    return Sums(
        size=values.size,
        nonzero=int(np.count_nonzero(values)),
        clipped=int(np.count_nonzero((values < low) | (values > high))),
        zeroed=int(np.count_nonzero((values != 0) & (quantized == 0))),
        signal=float(np.square(exact).sum()),
        noise=float(np.square(quantized - exact).sum()),
        low=float(values.min(initial=math.inf)),
        high=float(values.max(initial=-math.inf)),
    )


def part_error(sums: Sums, sample: Array, number_format: NumberFormat, target: float) -> PartError:
    """The error of a format. sample: (n,), values for the histogram and for the choice of other formats.

    target: the wanted signal to noise ratio in dB.
    """
    low, high = (sums.low, sums.high) if sums.size else (0.0, 0.0)
    format_low, format_high = ends_of(number_format)
    thinned = sample[:: max(1, len(sample) // _SAMPLE_SIZE)]
    needed = fewest_bits(number_format, thinned, target)
    best = max(_same_width(number_format, thinned), key=lambda each: sample_sqnr(thinned, each), default=None)
    counts = np.histogram(sample, _BINS, (low, high if high > low else low + 1))[0]
    return PartError(
        low=low,
        high=high,
        format_low=format_low,
        format_high=format_high,
        clipped=sums.clipped / max(1.0, sums.size),
        zeroed=sums.zeroed / max(1.0, sums.nonzero),
        sqnr=decibels(sums.signal, sums.noise),
        histogram=Histogram(low, high, tuple(counts.tolist())),
        bits_needed=needed,
        best=best,
        best_sqnr=math.nan if best is None else sample_sqnr(thinned, best),
    )


def decibels(signal: float, noise: float) -> float:
    """A signal to noise ratio in dB: infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def sample_sqnr(sample: Array, number_format: NumberFormat) -> float:
    """The signal to noise ratio of a sample in a format, rounded to the nearest number."""
    quantized = number_format.quantize(numpy_ops(np.random.default_rng(0)), sample, Rounding.NEAREST)
    exact = sample.astype(np.float64)
    return decibels(float(np.square(exact).sum()), float(np.square(quantized - exact).sum()))


def fewest_bits(number_format: NumberFormat, sample: Array, target: float) -> int | None:
    """The fewest bits of a format of the same kind that reach a signal to noise ratio; None if none do, or if the kind
    has no choice of widths."""
    for bits in range(1, _WIDEST + 1):
        if any(sample_sqnr(sample, each) >= target for each in _of_width(number_format, bits, sample)):
            return bits
    return None


def _same_width(number_format: NumberFormat, sample: Array) -> list[NumberFormat]:
    return list(_of_width(number_format, number_format.width(), sample))


def _of_width(number_format: NumberFormat, bits: int, sample: Array) -> Iterator[NumberFormat]:
    """The formats of a kind with so many bits that could be the best for a sample."""
    largest = float(np.abs(sample).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        yield from [replace(number_format, bits=bits)] if isinstance(number_format, Fixed) else []
    elif isinstance(number_format, Fixed):
        whole = math.frexp(largest)[1] + (1 if number_format.signed else 0) + 1
        for integer_bits in range(whole, whole - _SHORTER - 1, -1):
            yield replace(number_format, bits=bits, frac_bits=bits - integer_bits)
    elif isinstance(number_format, Minifloat):
        for exp_bits in _EXPONENT_BITS:
            if exp_bits < bits:
                yield replace(number_format, mant_bits=bits - 1 - exp_bits, exp_bits=exp_bits)
