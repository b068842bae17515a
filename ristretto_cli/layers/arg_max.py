"""ArgMax."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("ArgMax")
class ArgMax(LayerType):
    """The indices of the top_k largest values, largest first; of equals, the larger index first.

    With axis: that axis becomes top_k long and holds the indices, or, with out_max_val, the values.
    Without: each item of the batch is flattened, x (N, ...) to (N, 1, top_k, 1 ...), or, with out_max_val,
    (N, 2, top_k, 1 ...), the indices before the values; the top has as many axes as x, but at least three.
    """

    without_gradient = (0,)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.argmax_param
        has_axis = param.HasField("axis")
        axis = canonical_axis(param.axis if has_axis else 0, x.shape)
        extent = x.shape[axis] if has_axis else prod(x.shape[1:])
        if not 1 <= param.top_k <= extent:
            raise LayerError(
                f"top_k is {param.top_k}, but there are {extent} values",
                hint=f"Set it to a number from 1 to {extent}.",
            )
        if has_axis:
            values, indices = ops.top_k(x, param.top_k, axis)
            return [values if param.out_max_val else indices]
        values, indices = ops.top_k(ops.reshape(x, (x.shape[0], 1, extent)), param.top_k, 2)
        top = ops.concat([indices, values], 1) if param.out_max_val else indices
        return [ops.reshape(top, top.shape + (1,) * (len(x.shape) - 3))]
