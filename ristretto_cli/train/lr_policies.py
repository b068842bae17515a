"""The learning rate of an iteration, by Caffe's policies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ristretto_cli.train.solver_settings import Policy


def step_of(policy: Policy, iteration: int, current_step: int) -> int:
    """How often the rate is lowered in this iteration, by policies step and multistep; other ones leave it alone.

    current_step: how often it was in the last one. Caffe's multistep takes one step an iteration at most, so that
    a training which is resumed behind several stepvalues catches up one by one.
    """
    if policy.name == "step":
        return iteration // policy.stepsize
    if policy.name == "multistep":
        further = current_step < len(policy.stepvalues) and iteration >= policy.stepvalues[current_step]
        return current_step + further
    return current_step


def rate(policy: Policy, iteration: int, current_step: int) -> float:
    """The rate of an iteration, a float32. current_step: what step_of gives for it.

    Infinite or NaN where the policy's formula is.

    >>> step = Policy("step", base_lr=0.5, gamma=0.5, stepsize=10)
    >>> rate(step, 25, step_of(step, 25, 0))
    0.125
    """
    with np.errstate(all="ignore"):
        return float(np.float32(np.float64(policy.base_lr) * _factor(policy, iteration, current_step)))


def _factor(policy: Policy, iteration: int, current_step: int) -> Any:
    # numpy's float64 gives infinity where Python's raises.
    gamma, power = np.float64(policy.gamma), np.float64(policy.power)
    if policy.name in ("step", "multistep"):
        return gamma**current_step
    if policy.name == "exp":
        return gamma**iteration
    if policy.name == "inv":
        return (1 + gamma * iteration) ** -power
    if policy.name == "poly":
        return (1 - np.float64(iteration) / policy.max_iter) ** power
    if policy.name == "sigmoid":
        return 1 / (1 + np.exp(-gamma * (iteration - policy.stepsize)))
    return np.float64(1)
