"""LRN."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, PoolGeometry, V


@layer_type("LRN")
class LRN(LayerType):
    """Local response normalization of x (N, C, H, W) over n = local_size neighbours.

    ACROSS_CHANNELS: x / (k + alpha / n * sum of the squares of n channels) ** beta.
    WITHIN_CHANNEL: x * (1 + alpha * mean of the squares of n by n positions) ** -beta, with the mean of AVE
    pooling.
    """

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.lrn_param
        size = param.local_size
        if size % 2 == 0:
            raise LayerError(f"local_size must be odd, not {size}")
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        if enum_name(param, "norm_region") == "ACROSS_CHANNELS":
            return [ops.lrn(x, size=size, alpha=param.alpha, beta=param.beta, k=param.k)]
        border = (size - 1) // 2
        windows = PoolGeometry(kernel=(size, size), stride=(1, 1), pad=(border, border), ceil=True)
        mean = ops.ave_pool(ops.mul(x, x), windows)
        # Caffe does not read k here.
        scale = ops.add(ops.mul(mean, ops.constant(param.alpha)), ops.constant(1.0))
        return [ops.mul(x, ops.pow(scale, ops.constant(-param.beta)))]
