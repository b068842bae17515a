"""Reorg."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show

MAX_STRIDE = 2**15


@layer_type("Reorg")
class Reorg(LayerType):
    """YOLO's space to depth: blocks of stride x stride values to channels, or back with `reverse`.

    x (N, C, H, W) to (N, C stride^2, H / stride, W / stride), or (N, C / stride^2, H stride, W stride). The order is
    darknet's, which the forks for YOLO v2 adopted. Reversed, the channels are stride^2 groups, and
    group oy * stride + ox holds the values at (oy, ox) of each block. Otherwise the *bottom* is read as if it were
    such a result, C / stride^2 planes of H stride x W stride, is split into (stride^2 C', H, W), and that array is
    reshaped to the top: so one is not the inverse of the other.
    """

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.reorg_param
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        stride = param.stride
        if not 1 <= stride <= MAX_STRIDE:
            raise LayerError(f"stride must be 1 to {MAX_STRIDE}, not {stride}")
        batch, channels, height, width = x.shape
        block = stride**2
        # Darknet reads out of bounds if the channels are not a whole number of groups.
        if channels % block:
            raise LayerError(f"{channels} channels cannot be split into groups for stride {stride}: {block} are needed")
        if param.reverse:
            groups = ops.reshape(x, (batch, stride, stride, channels // block, height, width))
            planes = ops.transpose(groups, [0, 3, 4, 1, 5, 2])
            return [ops.reshape(planes, (batch, channels // block, height * stride, width * stride))]
        if height % stride or width % stride:
            raise LayerError(
                f"planes of {show((height, width))} cannot be split into blocks of {show((stride, stride))}"
            )
        planes = ops.reshape(x, (batch, channels // block, height, stride, width, stride))
        groups = ops.transpose(planes, [0, 3, 5, 1, 2, 4])
        return [ops.reshape(groups, (batch, channels * block, height // stride, width // stride))]
