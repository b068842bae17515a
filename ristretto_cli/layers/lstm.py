"""LSTM."""

from __future__ import annotations

from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.lstm_unit import lstm_step
from ristretto_cli.layers.recurrent import Recurrent
from ristretto_cli.ops import Ops, V


@layer_type("LSTM")
class LSTM(Recurrent):
    """Long short-term memory; its top is the hidden state of each step. The state is hidden, then cell."""

    bottoms = (2, 5)
    tops = (1, 3)
    state_count = 2
    rows_per_output = 4

    def step(self, ops: Ops[V], inputs: V, cont: V, state: tuple[V, ...]) -> tuple[V, ...]:
        cell, hidden = lstm_step(ops, state[1], inputs, cont)
        return hidden, cell
