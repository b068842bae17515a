"""ReLU."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("ReLU")
class ReLU(LayerType):
    """max(x, 0) + negative_slope * min(x, 0), limited to 6 with a fork's relu6."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        slope = layer.message.relu_param.negative_slope
        if layer.message.relu_param.relu6:
            if slope != 0:
                raise LayerError("relu6 cannot be combined with negative_slope")
            return [ops.clip(x, 0.0, 6.0)]
        if slope == 0:
            return [ops.relu(x)]
        zero = ops.constant(0.0)
        return [ops.where(ops.less(zero, x), x, ops.mul(x, ops.constant(slope)))]

    def keeps_elements(self, layer: Layer) -> bool:
        return self.is_constant_below_zero(layer) and not layer.message.relu_param.relu6

    def keeps_factors(self, layer: Layer) -> bool:
        return not layer.message.relu_param.relu6

    def is_constant_below_zero(self, layer: Layer) -> bool:
        return bool(layer.message.relu_param.negative_slope == 0)
