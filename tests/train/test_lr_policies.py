"""The learning rate of each policy, by numbers that can be followed."""

from __future__ import annotations

import math

import pytest

from ristretto_cli.train.lr_policies import rate, step_of
from ristretto_cli.train.solver_settings import LrPolicy


def at(policy: LrPolicy, iteration: int, current_step: int = 0) -> float:
    return rate(policy, iteration, step_of(policy, iteration, current_step))


@pytest.mark.parametrize(
    ("policy", "iteration", "expected"),
    [
        (LrPolicy("fixed", 0.25), 1000, 0.25),
        (LrPolicy("step", 1.0, gamma=0.5, stepsize=10), 9, 1.0),
        (LrPolicy("step", 1.0, gamma=0.5, stepsize=10), 10, 0.5),
        (LrPolicy("step", 1.0, gamma=0.5, stepsize=10), 39, 0.125),
        (LrPolicy("exp", 2.0, gamma=0.5), 3, 0.25),
        (LrPolicy("inv", 1.0, gamma=1.0, power=2.0), 3, 1 / 16),
        (LrPolicy("poly", 1.0, power=2.0, max_iter=4), 1, 9 / 16),
        (LrPolicy("poly", 1.0, power=2.0, max_iter=4), 4, 0.0),
        (LrPolicy("sigmoid", 1.0, gamma=-1.0, stepsize=5), 5, 0.5),
        (LrPolicy("sigmoid", 1.0, gamma=1.0, stepsize=5), 6, 1 / (1 + math.exp(-1))),
        (LrPolicy("exp", 1.0, gamma=0.0), 0, 1.0),
    ],
)
def test_the_rate_is_the_policys(policy: LrPolicy, iteration: int, expected: float) -> None:
    assert at(policy, iteration) == pytest.approx(expected, rel=1e-7)


def test_multistep_takes_one_step_an_iteration_even_if_it_lags() -> None:
    policy = LrPolicy("multistep", 1.0, gamma=0.5, stepvalues=(3, 4))
    assert [step_of(policy, iteration, 0) for iteration in (2, 3, 10)] == [0, 1, 1]
    assert step_of(policy, 11, 1) == 2
    assert step_of(policy, 12, 2) == 2
    assert rate(policy, 12, 2) == 0.25


def test_a_rate_that_grows_without_bounds_becomes_infinite() -> None:
    assert at(LrPolicy("exp", 1.0, gamma=10.0), 1000) == math.inf
