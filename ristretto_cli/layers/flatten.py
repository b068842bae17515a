"""Flatten."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Flatten")
class Flatten(LayerType):
    """The bottom, in the same memory, with the axes from `axis` to `end_axis` (inclusive) merged into one."""

    def shares_memory(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.flatten_param
        start = canonical_axis(param.axis, x.shape)
        stop = canonical_axis(param.end_axis, x.shape, setting="end_axis") + 1
        # Caffe lets end_axis be axis - 1: then no axis is merged, and an axis of extent 1 is inserted.
        if stop < start:
            raise LayerError(
                f"end_axis {stop - 1} is before axis {start} of a bottom of shape {show(x.shape)}",
                hint="Set end_axis to axis or more, or to -1 for the last.",
            )
        return [ops.reshape(x, (*x.shape[:start], prod(x.shape[start:stop]), *x.shape[stop:]))]
