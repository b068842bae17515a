"""The state of a solver, which it needs to resume in addition to the weights."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.ops import Array


@dataclass(frozen=True)
class SolverState:
    """The state of a training between two iterations.

    iteration: the number of updates so far, which is that of the next iteration. current_step: the number of steps by
    which policies step and multistep have lowered the rate. history: the state of the solver type, in Caffe's order: an
    array for each parameter, followed by as many again for AdaDelta and Adam. learned_net: the file of the weights as
    named in the solverstate file; may be empty.
    """

    iteration: int
    current_step: int
    history: tuple[Array, ...]
    learned_net: str = ""
