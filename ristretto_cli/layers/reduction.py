"""Reduction."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Reduction")
class Reduction(LayerType):
    """The axes of x from `axis` on reduced to one number: coeff times the sum, mean, sum of |x| or of squares."""

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.reduction_param
        axis = canonical_axis(param.axis, x.shape)
        operation = enum_name(param, "operation")
        coeff = np.float32(param.coeff)
        if operation == "MEAN":
            coeff /= np.float32(prod(x.shape[axis:]))
        elif operation == "ASUM":
            x = ops.abs(x)
        elif operation == "SUMSQ":
            x = ops.mul(x, x)
        top = ops.reshape(ops.sum(x, range(axis, len(x.shape))), x.shape[:axis])
        return [top if coeff == 1 else ops.mul(top, ops.constant(float(coeff)))]
