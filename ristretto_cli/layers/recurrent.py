"""Shared code of RNN and LSTM: bottoms, parameters, and the loop over time steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V, show

# Each step adds nodes to the graph; longer sequences can be split, passing the state on.
MAX_STEPS = 1024


@dataclass(frozen=True)
class _Extents:
    """Sizes from the bottoms' shapes and recurrent_param. static: values of the static input, None without one."""

    steps: int
    streams: int
    inputs: int
    static: int | None
    hidden: int

    @property
    def state(self) -> Shape:
        """(1, N, H), the shape of each state."""
        return 1, self.streams, self.hidden


class Recurrent(LayerType):
    """A layer that runs over the time steps of N streams. x (T, N, ...), continuation (T, N) to (T, N, H).

    Further bottoms: a static input (N, ...), used in every step, and, with expose_hidden, the initial
    state: state_count arrays (1, N, H). The state after the last step then follows the first top. Where the
    continuation is 0, a sequence begins and the state is reset. Without expose_hidden, a pass starts from
    the final state of the previous one.

    Parameters: weights (R, values of x) and bias (R) of x, weights (R, values) of the static input, weights
    (R, H) of the hidden state, R = rows_per_output * H, and those that the type needs after the steps.
    """

    without_gradient = (1,)
    state_count: ClassVar[int]
    rows_per_output: ClassVar[int] = 1

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        extents = self._extents(message, bottoms)
        param = message.recurrent_param
        rows = self.rows_per_output * extents.hidden
        shapes: list[Shape] = [(rows, extents.inputs), (rows,)]
        if extents.static is not None:
            shapes.append((rows, extents.static))
        shapes += [(rows, extents.hidden), *self.output_params(extents.hidden)]
        return tuple(ParamDef(shape, param.weight_filler if len(shape) == 2 else param.bias_filler) for shape in shapes)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        extents = self._extents(layer.message, [bottom.shape for bottom in bottoms])
        zeros = ops.expand(ops.constant(0.0), extents.state)
        return self.forward_from(ops, layer, bottoms, params, (zeros,) * self.state_count)[0]

    def states(self, layer: Layer) -> tuple[Shape, ...]:
        if layer.message.recurrent_param.expose_hidden:
            return ()
        return (self._extents(layer.message, [blob.shape for blob in layer.bottoms]).state,) * self.state_count

    def forward_from(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V], states: Sequence[V]
    ) -> tuple[Sequence[V], Sequence[V]]:
        exposed = layer.message.recurrent_param.expose_hidden
        self._check_tops(len(layer.tops), exposed=exposed)
        extents = self._extents(layer.message, [bottom.shape for bottom in bottoms])
        state = tuple(bottoms[-self.state_count :] if exposed else states)
        static = None if extents.static is None else bottoms[2]
        transformed, rest = _transformed(ops, extents, bottoms[0], static, params)
        recurrent = ops.transpose(rest[0], (1, 0))
        cont = ops.reshape(bottoms[1], (extents.steps, extents.streams, 1))
        hidden = []
        for t in range(extents.steps):
            with ops.scope(f"step {t + 1}"):
                continues = ops.slice(cont, 0, t, t + 1)
                known = ops.matmul(ops.mul(state[0], continues), recurrent)
                state = self.step(ops, ops.add(known, ops.slice(transformed, 0, t, t + 1)), continues, state)
            hidden.append(state[0])
        top = self.output(ops, ops.concat(hidden, 0), rest[1:])
        return ([top, *state], ()) if exposed else ([top], state)

    @abstractmethod
    def step(self, ops: Ops[V], inputs: V, cont: V, state: tuple[V, ...]) -> tuple[V, ...]:
        """The next state, the hidden one first, of inputs (1, N, R), cont (1, N, 1) and the state, (1, N, H) each."""

    def output_params(self, hidden: int) -> tuple[Shape, ...]:
        """The shapes of the parameters of `output`."""
        return ()

    def output(self, ops: Ops[V], hidden: V, params: Sequence[V]) -> V:
        """The first top, (T, N, H), of the hidden states of all steps, (T, N, H)."""
        return hidden

    def _check_tops(self, tops: int, *, exposed: bool) -> None:
        wanted = 1 + (self.state_count if exposed else 0)
        if tops != wanted:
            setting = "with" if exposed else "without"
            raise LayerError(f"expected {wanted} top{'s' * (wanted != 1)} {setting} expose_hidden, got {tops}")

    def _extents(self, message: Message, bottoms: Sequence[Shape]) -> _Extents:
        """LayerError if the bottoms do not fit each other or the settings."""
        param = message.recurrent_param
        states = self.state_count if param.expose_hidden else 0
        if not 2 + states <= len(bottoms) <= 3 + states:
            setting = "with" if param.expose_hidden else "without"
            raise LayerError(
                f"expected {2 + states} or {3 + states} bottoms {setting} expose_hidden, got {len(bottoms)}"
            )
        if param.num_output < 1:
            raise LayerError("num_output is missing", hint="Set the number of outputs, 1 or more.")
        x, cont = bottoms[:2]
        if len(x) < 3 or cont != x[:2]:
            raise LayerError(
                f"bottoms of shape {show(x)} and {show(cont)} are not steps x streams x values and steps x streams"
            )
        if x[0] > MAX_STEPS:
            raise LayerError(f"{x[0]} time steps are too many", hint=f"The maximum is {MAX_STEPS}.")
        static = bottoms[2] if len(bottoms) == 3 + states else None
        if static is not None and (len(static) < 2 or static[0] != x[1]):
            raise LayerError(f"the static input has shape {show(static)}", hint=f"Expected {x[1]} x values.")
        state = (1, x[1], param.num_output)
        for shape in bottoms[len(bottoms) - states :]:
            if shape != state:
                raise LayerError(f"an initial state has shape {show(shape)}", hint=f"Expected {show(state)}.")
        return _Extents(
            steps=x[0],
            streams=x[1],
            inputs=math.prod(x[2:]),
            static=None if static is None else math.prod(static[1:]),
            hidden=param.num_output,
        )


def _transformed(ops: Ops[V], extents: _Extents, x: V, static: V | None, params: Sequence[V]) -> tuple[V, Sequence[V]]:
    """The inputs' contribution to each step, (T, N, R), and the remaining parameters."""
    weights, bias, *rest = params
    rows = weights.shape[0]
    flat = ops.reshape(x, (extents.steps * extents.streams, extents.inputs))
    transformed = ops.reshape(ops.linear(flat, weights, bias), (extents.steps, extents.streams, rows))
    if static is None or extents.static is None:
        return transformed, rest
    flat = ops.reshape(static, (extents.streams, extents.static))
    return ops.add(transformed, ops.linear(flat, rest[0], None)), rest[1:]
