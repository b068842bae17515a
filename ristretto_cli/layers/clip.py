"""Clip."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Clip")
class Clip(LayerType):
    """max(min, min(x, max)); if min exceeds max, the result is min. NaN gives the upper bound."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        if not layer.message.HasField("clip_param"):
            # Caffe would make everything 0.
            raise LayerError("clip_param is missing", hint="Set its min and max.")
        low, high = layer.message.clip_param.min, layer.message.clip_param.max
        return [ops.clip(x, low, high if low <= high else low)]

    def is_constant_below_zero(self, layer: Layer) -> bool:
        return bool(layer.message.clip_param.min >= 0)
