"""Exp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.logarithm_base import E, log_of_base
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Exp")
class Exp(LayerType):
    """base ** (shift + scale * x); the base is e by default."""

    in_place = True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.exp_param
        # As in Caffe, in float32: exp(log(base) * scale * x) * base ** shift.
        with np.errstate(all="ignore"):
            inner = np.float32(log_of_base(param.base)) * np.float32(param.scale)
            shift = np.float32(param.shift)
            outer = np.exp(shift) if param.base == E else np.power(np.float32(param.base), shift)
        top = ops.exp(x if inner == 1 else ops.mul(x, ops.constant(float(inner))))
        return [top if outer == 1 else ops.mul(top, ops.constant(float(outer)))]
