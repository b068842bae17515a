"""ShuffleChannel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("ShuffleChannel")
class ShuffleChannel(LayerType):
    """ShuffleNet's channel shuffle: the first channel of each group, then the second of each. x (N, C, ...)."""

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        group = layer.message.shuffle_channel_param.group
        if len(x.shape) < 2:
            raise LayerError(f"the bottom has shape {show(x.shape)}, but ShuffleChannel needs a channel axis")
        batch, channels, *rest = x.shape
        if group < 1 or channels % group:
            raise LayerError(f"{channels} channels cannot be split into {group} groups")
        split = ops.reshape(x, (batch, group, channels // group, prod(rest)))
        return [ops.reshape(ops.transpose(split, [0, 2, 1, 3]), x.shape)]
