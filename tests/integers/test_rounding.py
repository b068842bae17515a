"""Divisions of integers, compared with exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from ristretto_cli.integers.arithmetic import requantize, rounded
from ristretto_cli.integers.program import Requantization
from ristretto_cli.integers.rounding import ShiftRounding, divided

MODES = list(ShiftRounding)


def nearest(x: Fraction, mode: ShiftRounding) -> int:
    """The definition of each mode."""
    below = math.floor(x)
    if mode is ShiftRounding.FLOOR:
        return below
    rest = x - below
    if rest != Fraction(1, 2):
        return below + (rest > Fraction(1, 2))
    if mode is ShiftRounding.HALF_EVEN:
        return below + below % 2
    if mode is ShiftRounding.HALF_UP:
        return below + 1
    return below + (x > 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("divisor", [1, 3, 9, 49])
@pytest.mark.parametrize("shift", [0, 1, 2, 5])
def test_a_division_rounds_as_its_mode_says(mode: ShiftRounding, divisor: int, shift: int) -> None:
    n = np.arange(-700, 700, dtype=np.int64)
    expected = [nearest(Fraction(int(i), divisor << shift), mode) for i in n]
    assert divided(n, shift, divisor, mode).tolist() == expected


@pytest.mark.parametrize("mode", MODES)
def test_shifts_of_all_bits_leave_the_sign_alone(mode: ShiftRounding) -> None:
    n = np.array([-(2**60), -1, 0, 1, 2**60], np.int64)
    expected = [-1, -1, 0, 0, 0] if mode is ShiftRounding.FLOOR else [0] * 5
    assert divided(n, 100, 1, mode).tolist() == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shift", [-70, -61, -8, -3, 0, 4, 70])
@pytest.mark.parametrize("divisor", [1, 9])
@pytest.mark.parametrize(("low", "high"), [(-128, 127), (0, 255), (-1, 0), (-(2**31), 2**31 - 1)])
def test_requantization_saturates_the_rounded_value(
    mode: ShiftRounding, shift: int, divisor: int, low: int, high: int
) -> None:
    rng = np.random.default_rng(0)
    n = np.concatenate([rng.integers(-(2**60), 2**60, 30), np.arange(-300, 300, 7), [low, high, low - 1, high + 1]])
    found = requantize(n.astype(np.int64), Requantization(shift, low, high, divisor), mode)
    exact = [nearest(Fraction(int(i)) / divisor / Fraction(2) ** shift, mode) for i in n]
    assert found.tolist() == [min(max(i, low), high) for i in exact]


@pytest.mark.parametrize("mode", MODES)
def test_numbers_round_like_integers(mode: ShiftRounding) -> None:
    numbers = np.arange(-9, 9.1, 0.25)
    assert rounded(numbers, mode).tolist() == [nearest(Fraction(x), mode) for x in numbers]
