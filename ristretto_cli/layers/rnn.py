"""RNN."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.recurrent import Recurrent
from ristretto_cli.ops import Ops, Shape, V


@layer_type("RNN")
class RNN(Recurrent):
    """A plain recurrent layer: hidden state h = tanh(inputs), top tanh(h @ weights.T + bias).

    The last two parameters are these weights (H, H) and bias (H).
    """

    bottoms = (2, 4)
    tops = (1, 2)
    state_count = 1

    def step(self, ops: Ops[V], inputs: V, cont: V, state: tuple[V, ...]) -> tuple[V, ...]:
        return (ops.tanh(inputs),)

    def output_params(self, hidden: int) -> tuple[Shape, ...]:
        return (hidden, hidden), (hidden,)

    def output(self, ops: Ops[V], hidden: V, params: Sequence[V]) -> V:
        weights, bias = params
        steps, streams, extent = hidden.shape
        flat = ops.linear(ops.reshape(hidden, (steps * streams, extent)), weights, bias)
        return ops.tanh(ops.reshape(flat, hidden.shape))
