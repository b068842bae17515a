"""Concat."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import either_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Concat")
class Concat(LayerType):
    """The bottoms concatenated along an axis; their other extents are equal."""

    bottoms = (1, None)

    def shares_memory(self, layer: Layer) -> bool:
        return len(layer.bottoms) == 1

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        param = layer.message.concat_param
        first = bottoms[0].shape
        axis = either_axis(
            param.axis if param.HasField("axis") else None,
            param.concat_dim if param.HasField("concat_dim") else None,
            1,
            first,
            old_setting="concat_dim",
        )
        for number, x in enumerate(bottoms):
            if len(x.shape) != len(first) or _without(x.shape, axis) != _without(first, axis):
                raise LayerError(
                    f"bottom {number} has shape {show(x.shape)}, which differs from bottom 0's {show(first)} "
                    f"on an axis other than {axis}",
                    hint="Concatenate bottoms that differ only on that axis, or set axis.",
                )
        return [bottoms[0] if len(bottoms) == 1 else ops.concat(bottoms, axis)]


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
