"""Adaptive rounding: on the grid, no worse than nearest rounding, and a minimum for changes of single weights."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ristretto_cli.corrections.adaptive_rounding import adaptive_rounding, squared_error
from ristretto_cli.corrections.rounding_to import quantized, round_to
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import NumberFormat
from ristretto_cli.formats.power_of_two import PowerOfTwo

FORMATS: list[NumberFormat] = [Fixed(1, 0), Fixed(2, 1), Fixed(3, 2), Fixed(4, 6), Minifloat(2, 3), PowerOfTwo(-8, -1)]


def problem(seed: int, groups: int, outputs: int, columns: int, *, mixed: int | None = None) -> tuple[Any, Any]:
    """Weights and the second moments of correlated inputs. mixed: the number of independent sources."""
    rng = np.random.default_rng(seed)
    sources = rng.normal(size=(groups, 4 * columns, mixed or columns))
    inputs = sources @ rng.normal(size=(groups, mixed or columns, columns))
    moments = inputs.transpose(0, 2, 1) @ inputs / inputs.shape[1]
    own = np.diagonal(moments, axis1=1, axis2=2).mean()
    return rng.normal(scale=0.4, size=(groups, outputs, columns)), moments + 0.01 * own * np.eye(columns)


def numbers_of(number_format: NumberFormat) -> Any:
    """The numbers of a small format near those of the tests."""
    return np.unique(round_to(number_format)(np.linspace(-4, 4, 2**14 + 1)))


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_results_are_on_the_grid_and_no_worse_than_the_nearest(number_format: NumberFormat, groups: int) -> None:
    for seed in range(4):
        # More columns than are rounded together.
        target, moments = problem(seed, groups, 5, 140 if seed == 0 else 12)
        for sweeps in (0, 1, 6):
            found = adaptive_rounding(target, moments, round_to(number_format), sweeps=sweeps)
            assert found.shape == target.shape
            np.testing.assert_array_equal(quantized(found.astype(np.float32), number_format), found)
            nearest = squared_error(round_to(number_format)(target) - target, moments)
            assert squared_error(found - target, moments) <= nearest * (1 + 1e-9)


def test_correlated_inputs_allow_much_smaller_errors() -> None:
    target, moments = problem(0, 2, 8, 48, mixed=6)
    rounding = round_to(Fixed(4, 3))
    nearest = squared_error(rounding(target) - target, moments)
    assert squared_error(adaptive_rounding(target, moments, rounding, sweeps=6) - target, moments) < 0.4 * nearest


def test_uncorrelated_inputs_leave_the_nearest() -> None:
    target, _ = problem(1, 2, 3, 10)
    moments = np.broadcast_to(np.diag(np.arange(1.0, 11.0)), (2, 10, 10))
    found = adaptive_rounding(target, moments, round_to(Fixed(3, 2)), sweeps=6)
    np.testing.assert_array_equal(found, round_to(Fixed(3, 2))(target))


@pytest.mark.parametrize("number_format", [Fixed(2, 1), Fixed(3, 2), PowerOfTwo(-4, -1)], ids=str)
def test_descent_ends_where_no_change_of_one_weight_helps(number_format: NumberFormat) -> None:
    numbers = numbers_of(number_format)
    for seed in range(5):
        target, moments = problem(seed, 1, 2, 5, mixed=2)
        found = adaptive_rounding(target, moments, round_to(number_format), sweeps=100)
        least = squared_error(found - target, moments)
        for output, column in np.ndindex(2, 5):
            for value in numbers:
                other = found.copy()
                other[0, output, column] = value
                assert squared_error(other - target, moments) >= least - 1e-9


def test_each_sweep_reduces_the_error() -> None:
    target, moments = problem(3, 2, 6, 20, mixed=5)
    for number_format in FORMATS:
        rounding = round_to(number_format)
        errors = [
            squared_error(adaptive_rounding(target, moments, rounding, sweeps=n) - target, moments) for n in range(6)
        ]
        assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(errors))


def test_the_arguments_are_not_modified() -> None:
    target, moments = problem(0, 1, 2, 6)
    before = target.copy(), moments.copy()
    adaptive_rounding(target, moments, round_to(Fixed(2, 1)), sweeps=2)
    np.testing.assert_array_equal(target, before[0])
    np.testing.assert_array_equal(moments, before[1])


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_rounding_keeps_the_numbers_of_a_format(number_format: NumberFormat) -> None:
    numbers = numbers_of(number_format)
    np.testing.assert_array_equal(round_to(number_format)(numbers), numbers)
    np.testing.assert_array_equal(quantized(numbers.astype(np.float32), number_format), numbers)


def test_powers_of_two_are_the_nearest_by_difference() -> None:
    rounding = round_to(PowerOfTwo(-2, 0))
    # The format itself, by ratio, rounds 0.72 up.
    assert rounding(np.array([0.72, 0.76, -0.72, 5.0, 0.0, -1e-9])).tolist() == [0.5, 1, -0.5, 1, 0.25, -0.25]
