"""SPP."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ristretto_cli.caffe_io.messages import TRAIN, enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.stochastic_pooling import draw, expect
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, PoolGeometry, Shape, V, show


@layer_type("SPP")
class SPP(LayerType):
    """Spatial pyramid pooling: level i has 2^i by 2^i windows, or fewer if the last ones lie in the padding.

    x (N, C, H, W). With pyramid_height 1 the top is that level, (N, C, 1, 1); otherwise all levels, flattened and
    concatenated, (N, total).
    """

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        height = layer.message.spp_param.pyramid_height
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        if height < 1:
            raise LayerError("pyramid_height is missing or 0", hint="Set the number of levels, 1 or more.")
        if height == 1:
            return [_level(ops, layer, x, 0)]
        levels = [_level(ops, layer, x, level) for level in range(height)]
        return [ops.concat([ops.reshape(y, (y.shape[0], prod(y.shape[1:]))) for y in levels], 1)]


def _level(ops: Ops[V], layer: Layer, x: V, level: int) -> V:
    method = enum_name(layer.message.spp_param, "pool")
    bins, extent = 2**level, x.shape[2:]
    kernel: Shape = tuple(-(-n // bins) for n in extent)
    # Half of the excess of the windows over the image on each side, rounded up.
    pad: Shape = tuple((k * bins - n + 1) // 2 for k, n in zip(kernel, extent, strict=True))
    windows = PoolGeometry(kernel, stride=kernel, pad=pad, ceil=True)
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise LayerError(
            f"{bins} windows of {show(kernel)} on level {level} do not fit an image of {show(extent)}: they need "
            f"padding {show(pad)}, which is not smaller than the kernel",
            hint="Reduce pyramid_height.",
        )
    if method == "MAX":
        return ops.max_pool(x, windows)
    if method == "AVE":
        return ops.ave_pool(x, windows)
    if any(pad):
        raise LayerError(
            f"pool STOCHASTIC does not support padding; level {level} of an image of {show(extent)} needs {show(pad)}",
            hint="Reduce pyramid_height, or choose another pool.",
        )
    return (draw if layer.phase == TRAIN else expect)(ops, x, windows)
