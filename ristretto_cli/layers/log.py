"""Log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.logarithm_base import log_of_base
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Log")
class Log(LayerType):
    """The logarithm of shift + scale * x, by default to the base e."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.log_param
        log_base = log_of_base(param.base)
        if log_base == 0:
            raise LayerError("base must be positive and not 1")
        if param.scale != 1:
            x = ops.mul(x, ops.constant(param.scale))
        if param.shift != 0:
            x = ops.add(x, ops.constant(param.shift))
        factor = np.float32(1) / np.float32(log_base)
        return [ops.log(x) if factor == 1 else ops.mul(ops.log(x), ops.constant(float(factor)))]
