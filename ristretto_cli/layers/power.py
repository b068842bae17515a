"""Power."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Power")
class Power(LayerType):
    """(shift + scale * x) ** power, in this order; steps without effect are omitted."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.power_param
        power, scale, shift = param.power, param.scale, param.shift
        if np.float32(power) * np.float32(scale) == 0:
            # Then the top does not depend on x, even if x is infinite or NaN.
            with np.errstate(all="ignore"):
                value = np.power(np.float32(shift), np.float32(power))
            return [ops.expand(ops.constant(np.asarray(value)), x.shape)]
        if scale != 1:
            x = ops.mul(x, ops.constant(scale))
        if shift != 0:
            x = ops.add(x, ops.constant(shift))
        if power != 1:
            x = ops.pow(x, ops.constant(power))
        return [x]
