"""Slice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import either_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Slice")
class Slice(LayerType):
    """The bottom split along an axis, one part per top: at the slice points, or into equal parts."""

    tops = (1, None)

    def shares_memory(self, layer: Layer) -> bool:
        return len(layer.tops) == 1

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.slice_param
        axis = either_axis(
            param.axis if param.HasField("axis") else None,
            param.slice_dim if param.HasField("slice_dim") else None,
            1,
            x.shape,
            old_setting="slice_dim",
        )
        points = tuple(param.slice_point)
        cuts = _given(points, x.shape[axis], len(layer.tops)) if points else _even(x.shape[axis], len(layer.tops))
        if len(layer.tops) == 1:
            return [x]
        return [ops.slice(x, axis, start, stop) for start, stop in pairwise(cuts)]


def _given(points: tuple[int, ...], extent: int, parts: int) -> tuple[int, ...]:
    """The starts of the parts, and the end."""
    if len(points) != parts - 1:
        raise LayerError(
            f"{len(points)} slice_point settings for {parts} tops",
            hint=f"Set {parts - 1}, one less than the number of tops, or none for equal parts.",
        )
    cuts = (0, *points, extent)
    if any(start >= stop for start, stop in pairwise(cuts)):
        raise LayerError(
            f"the slice points {', '.join(map(str, points))} do not split an extent of {extent}",
            hint=f"Use increasing numbers from 1 to {extent - 1}.",
        )
    return cuts


def _even(extent: int, parts: int) -> tuple[int, ...]:
    """The starts of the parts, and the end."""
    if extent % parts != 0:
        raise LayerError(
            f"an extent of {extent} cannot be split into {parts} equal parts, one per top",
            hint="Set slice_point, or change the number of tops.",
        )
    return tuple(extent // parts * part for part in range(parts + 1))
