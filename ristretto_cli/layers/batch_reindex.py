"""BatchReindex."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("BatchReindex")
class BatchReindex(LayerType):
    """The items of a batch selected by indices, in their order. x (N, *S), indices (M,) to (M, *S).

    Indices are truncated towards zero; one below 0 or above N - 1 is an error at run time.
    """

    bottoms = (2, 2)
    without_gradient = (1,)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, indices = bottoms
        if not x.shape:
            raise LayerError("its first bottom is a scalar", hint="Use a bottom with an axis of items.")
        if len(indices.shape) != 1:
            raise LayerError(
                f"its second bottom, the indices, has shape {show(indices.shape)}", hint="It must have one axis."
            )
        # Caffe rejects -0.5, although it truncates to 0.
        below = ops.less(indices, ops.constant(0.0))
        return [ops.gather(x, ops.where(below, ops.constant(-1.0), indices), 0)]
