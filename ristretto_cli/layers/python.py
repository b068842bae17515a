"""Python, the layer whose code is the user's own: known, so that it is told why it cannot be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V
from ristretto_cli.wire.messages import Message


@layer_type("Python")
class Python(LayerType):
    """Refused: its code is written against Caffe's own blobs, which are not there."""

    bottoms = (0, None)
    tops = (0, None)
    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        _refuse(message)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        _refuse(layer.message)


def _refuse(message: Message) -> NoReturn:
    param = message.python_param
    raise LayerError(
        f'Python layers cannot be run: module "{param.module}", layer "{param.layer}"',
        remedy="Leave it out of the net, or put layers of Caffe in its place.",
    )
