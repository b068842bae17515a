"""LSTMUnit."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("LSTMUnit")
class LSTMUnit(LayerType):
    """One time step of an LSTM. Cell (1, N, H), gate inputs (1, N, 4 H), continuation (1, N) to cell and hidden."""

    bottoms = (3, 3)
    without_gradient = (2,)
    tops = (2, 2)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        cell, gates, cont = bottoms
        shape = cell.shape
        if len(shape) != 3 or shape[0] != 1:
            raise LayerError(f"the cell has shape {show(shape)}", hint="Expected 1 x N x H.")
        _, streams, hidden = shape
        if gates.shape != (1, streams, 4 * hidden) or cont.shape != (1, streams):
            raise LayerError(
                f"gate inputs {show(gates.shape)} and continuation {show(cont.shape)} do not fit a cell {show(shape)}",
                hint=f"Expected 1x{streams}x{4 * hidden} and 1x{streams}.",
            )
        return lstm_step(ops, cell, gates, ops.reshape(cont, (1, streams, 1)))


def lstm_step(ops: Ops[V], cell: V, gates: V, cont: V) -> tuple[V, V]:
    """The next cell and hidden state, both (1, N, H), of cell (1, N, H), gates (1, N, 4 H), cont (1, N, 1).

    gates are the inputs of the input, forget and output gates and of the new values, in this order.
    """
    hidden = cell.shape[2]
    opened = ops.sigmoid(ops.slice(gates, 2, 0, 3 * hidden))
    values = ops.tanh(ops.slice(gates, 2, 3 * hidden, 4 * hidden))
    enter, keep, leave = (ops.slice(opened, 2, i * hidden, (i + 1) * hidden) for i in range(3))
    cell = ops.add(ops.mul(ops.mul(cont, keep), cell), ops.mul(enter, values))
    return cell, ops.mul(leave, ops.tanh(cell))
