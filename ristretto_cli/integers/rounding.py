"""Division of integers by a positive number, in the rounding modes of hardware."""

from __future__ import annotations

from enum import Enum

import numpy as np

from ristretto_cli.ops import AnyArray

_MAX_SHIFT = 62  # of int64, for values below 2^61


class ShiftRounding(Enum):
    """How a sum is rounded when bits are shifted out; the values are those of --rounding.

    HALF_EVEN is what nets are scored with by default.
    """

    HALF_EVEN = "half_even"
    HALF_UP = "half_up"
    AWAY = "away"
    FLOOR = "floor"

    @property
    def description(self) -> str:
        """What it does, in a few words."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    ShiftRounding.HALF_EVEN: "to the nearest integer, ties to the even one",
    ShiftRounding.HALF_UP: "to the nearest integer, ties up: (n + half) >> shift",
    ShiftRounding.AWAY: "to the nearest integer, ties away from zero",
    ShiftRounding.FLOOR: "down: n >> shift",
}


def divided(n: AnyArray, shift: int, divisor: int, rounding: ShiftRounding) -> AnyArray:
    """n / (divisor * 2^shift) as integers; n int64 with magnitudes below 2^61, shift and divisor not negative.

    >>> divided(np.array([-3, -1, 1, 3, 5]), 1, 1, ShiftRounding.HALF_EVEN)
    array([-2,  0,  0,  2,  2])
    """
    if divisor == 1:
        return _shifted(n, min(shift, _MAX_SHIFT), rounding)
    whole = divisor << shift
    if whole > 1 << _MAX_SHIFT:  # more than twice any n
        return np.asarray(-(n < 0).astype(np.int64) if rounding is ShiftRounding.FLOOR else np.zeros_like(n))
    below = n // whole
    twice = 2 * (n - below * whole)
    if rounding is ShiftRounding.FLOOR:
        return np.asarray(below)
    up = {
        ShiftRounding.HALF_EVEN: below & 1 == 1,
        ShiftRounding.HALF_UP: np.ones(n.shape, np.bool_),
        ShiftRounding.AWAY: n > 0,
    }[rounding]
    return np.asarray(below + ((twice > whole) | ((twice == whole) & up)))


def _shifted(n: AnyArray, shift: int, rounding: ShiftRounding) -> AnyArray:
    if shift == 0:
        return n
    half = np.int64(1) << (shift - 1)
    if rounding is ShiftRounding.FLOOR:
        return n >> shift
    if rounding is ShiftRounding.HALF_UP:
        return np.asarray((n + half) >> shift)
    if rounding is ShiftRounding.AWAY:
        return np.asarray(np.sign(n) * ((np.abs(n) + half) >> shift))
    return np.asarray((n + (half - 1) + ((n >> shift) & 1)) >> shift)
