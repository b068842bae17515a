"""What a solver needs, beside the weights, to go on where it stopped."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.ops import Array


@dataclass(frozen=True)
class State:
    """The state of a training between two iterations.

    iteration: how many updates were made; the next one has this number. current_step: how often the policies step and
    multistep have lowered the rate. history: what the solver type remembers of past gradients, in Caffe's order: an
    array for each parameter to learn; AdaDelta and Adam have as many again behind these. learned_net: the file of the
    weights that belong to it, as the state's file names it; empty where it names none.
    """

    iteration: int
    current_step: int
    history: tuple[Array, ...]
    learned_net: str = ""
