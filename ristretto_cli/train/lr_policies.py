"""The learning rate of an iteration, by Caffe's policies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ristretto_cli.train.solver_settings import LrPolicy


def step_of(policy: LrPolicy, iteration: int, current_step: int) -> int:
    """The number of steps by which policies step and multistep have lowered the rate in this iteration.

    current_step: that of the previous iteration, which other policies keep. Caffe's multistep takes at most one step
    per iteration, so a training that is resumed after several stepvalues catches up one by one.
    """
    if policy.name == "step":
        return iteration // policy.stepsize
    if policy.name == "multistep":
        further = current_step < len(policy.stepvalues) and iteration >= policy.stepvalues[current_step]
        return current_step + further
    return current_step


def rate(policy: LrPolicy, iteration: int, current_step: int) -> float:
    """The learning rate of an iteration, a float32. current_step: the result of step_of.

    It may be infinite or NaN, by the policy's formula.

    >>> step = LrPolicy("step", base_lr=0.5, gamma=0.5, stepsize=10)
    >>> rate(step, 25, step_of(step, 25, 0))
    0.125
    """
    with np.errstate(all="ignore"):
        return float(np.float32(np.float64(policy.base_lr) * _factor(policy, iteration, current_step)))


def _factor(policy: LrPolicy, iteration: int, current_step: int) -> Any:
    # numpy's float64 gives infinity where Python's float raises.
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
