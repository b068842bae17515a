"""InnerProduct."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V


@layer_type("InnerProduct")
class InnerProduct(LayerType):
    """x @ weights.T + bias. weights (N, K), or (K, N) with transpose; bias (N).

    The axes of x from `axis` on are one vector of K numbers, which the top replaces by num_output = N.
    """

    family = "FC"
    quantized_type = "FcRistretto"

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        param = message.inner_product_param
        outputs = param.num_output
        if outputs < 1:
            raise LayerError("num_output is missing", hint="Set the number of outputs, 1 or more.")
        inputs = math.prod(bottoms[0][canonical_axis(param.axis, bottoms[0]) :])
        weights = ParamDef((inputs, outputs) if param.transpose else (outputs, inputs), param.weight_filler)
        return (weights, ParamDef((outputs,), param.bias_filler)) if param.bias_term else (weights,)

    def filter_axis(self, message: Message) -> int:
        return 1 if message.inner_product_param.transpose else 0

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.inner_product_param
        axis = canonical_axis(param.axis, x.shape)
        rows = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        matrix = x if x.shape == rows else ops.reshape(x, rows)
        weight, bias = params[0], params[1] if param.bias_term else None
        if param.transpose:
            top = ops.matmul(matrix, weight)
            top = top if bias is None else ops.add(top, bias)
        else:
            top = ops.linear(matrix, weight, bias)
        shape = (*x.shape[:axis], param.num_output)
        return [top if top.shape == shape else ops.reshape(top, shape)]
