"""Checks of a solver's settings: errors in Caffe too, and settings that could not train anything, with their lines."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ristretto_cli.caffe_io.net_file import SolverFile
from ristretto_cli.errors import Location, RistrettoError, did_you_mean

POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
REGULARIZATIONS = ("L1", "L2")

TRAIN_NETS = ("net", "net_param", "train_net", "train_net_param")
_NUMBERS = (
    *("base_lr", "gamma", "power", "momentum", "momentum2", "delta", "rms_decay", "weight_decay", "clip_gradients"),
)
_MINIMUMS = {
    **{"display": 0, "test_interval": 0, "snapshot": 0, "max_iter": 0},
    **{"iter_size": 1, "average_loss": 1},
}


def faults(solver: SolverFile) -> Iterator[RistrettoError]:
    """The errors of a solver file."""
    yield from _net_faults(solver)
    yield from _test_faults(solver)
    yield from _number_faults(solver)
    yield from _policy_faults(solver)
    yield from _rule_faults(solver)


def _at(solver: SolverFile, name: str, index: int = 0) -> Location:
    return solver.parsed.where(name, index)


def _net_faults(solver: SolverFile) -> Iterator[RistrettoError]:
    given = [name for name in TRAIN_NETS if solver.message.HasField(name)]
    if not given:
        yield RistrettoError("no net to train is given", where=solver.file, hint='Add net: "train_val.prototxt".')
    if len(given) > 1:
        yield RistrettoError(
            f"the solver has several nets to train: {', '.join(given)}",
            where=_at(solver, given[1]),
            hint="Use only one of them.",
        )


def _test_faults(solver: SolverFile) -> Iterator[RistrettoError]:
    param = solver.message
    own = len(param.test_net) + len(param.test_net_param)
    generic = param.HasField("net") or param.HasField("net_param")
    count = len(param.test_iter)
    if count < own or (count > own and not generic):
        place = _at(solver, "test_iter" if count else "test_net" if len(param.test_net) else "test_net_param")
        yield RistrettoError(
            f"the solver has {count} test_iter for {own} test nets", where=place, hint="Set one for each test net."
        )
    elif len(param.test_state) not in (0, count):
        yield RistrettoError(
            f"the solver has {len(param.test_state)} test_state for {count} test nets",
            where=_at(solver, "test_state"),
            hint="Set one for each test net, or none.",
        )
    if count and param.test_interval == 0:
        yield RistrettoError(
            "the solver has a test net but no test_interval",
            where=_at(solver, "test_interval" if param.HasField("test_interval") else "test_iter"),
            hint="Set the number of iterations between tests: test_interval: 500.",
        )
    for i, iterations in enumerate(param.test_iter):
        if iterations < 0:
            yield _out_of_range(solver, "test_iter", iterations, "0 or more", i)


def _number_faults(solver: SolverFile) -> Iterator[RistrettoError]:
    param = solver.message
    for name in ("base_lr", "max_iter"):
        if not param.HasField(name):
            yield RistrettoError(f"{name} is missing", where=solver.file, hint=f"Add {name} to the solver.")
    for name in _NUMBERS:
        if not math.isfinite(getattr(param, name)):
            yield _out_of_range(solver, name, getattr(param, name), "a number")
    for name, minimum in _MINIMUMS.items():
        if getattr(param, name) < minimum:
            yield _out_of_range(solver, name, getattr(param, name), f"{minimum} or more")


def _policy_faults(solver: SolverFile) -> Iterator[RistrettoError]:
    param = solver.message
    if param.lr_policy not in POLICIES:
        known = f"Known: {', '.join(POLICIES)}."
        what = f'unknown learning rate policy "{param.lr_policy}"'
        if not param.HasField("lr_policy"):
            yield RistrettoError("lr_policy is missing", where=solver.file, hint=known)
        else:
            hint = did_you_mean(param.lr_policy, POLICIES) or known
            yield RistrettoError(what, where=_at(solver, "lr_policy"), hint=hint)
        return
    if param.lr_policy in ("step", "sigmoid") and param.stepsize <= 0:
        yield _out_of_range(solver, "stepsize", param.stepsize, f"1 or more for policy {param.lr_policy}")
    if param.lr_policy not in ("fixed", "poly") and param.gamma < 0:
        yield _out_of_range(solver, "gamma", param.gamma, f"0 or more for policy {param.lr_policy}")


def _rule_faults(solver: SolverFile) -> Iterator[RistrettoError]:
    param = solver.message
    if param.type not in TYPES:
        hint = did_you_mean(param.type, TYPES) or f"Known: {', '.join(TYPES)}."
        yield RistrettoError(f'unknown solver type "{param.type}"', where=_at(solver, "type"), hint=hint)
    if param.regularization_type not in REGULARIZATIONS:
        what = f'unknown regularization type "{param.regularization_type}"'
        yield RistrettoError(what, where=_at(solver, "regularization_type"), hint="Known: L1, L2.")
    if param.type in ("AdaGrad", "RMSProp") and param.momentum != 0:
        yield RistrettoError(
            f"momentum cannot be used with solver type {param.type}", where=_at(solver, "momentum"), hint="Remove it."
        )
    if param.type == "RMSProp" and not 0 <= param.rms_decay < 1:
        yield _out_of_range(solver, "rms_decay", param.rms_decay, "in [0, 1)")
    if param.type == "Adam":
        for name in ("momentum", "momentum2"):
            if not 0 <= getattr(param, name) < 1:
                yield _out_of_range(solver, name, getattr(param, name), "in [0, 1) for Adam")
    if param.type == "AdaDelta" and not 0 <= param.momentum <= 1:
        yield _out_of_range(solver, "momentum", param.momentum, "in [0, 1] for AdaDelta")


def _out_of_range(solver: SolverFile, name: str, value: float, wanted: str, index: int = 0) -> RistrettoError:
    place = _at(solver, name, index)
    return RistrettoError(f"{name} is {value:g}", where=place, hint=f"It must be {wanted}.")
