"""Filter."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Filter")
class Filter(LayerType):
    """Refused: the items of each bottom but the last where the last one, the selector, is not 0.

    How many items pass is known only when the selector's values are, and here all shapes are known before.
    """

    bottoms = (2, None)
    tops = (1, None)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        *blobs, selector = (bottom.shape for bottom in bottoms)
        if len(layer.tops) != len(blobs):
            raise LayerError(
                f"it has {len(layer.tops)} tops for {len(blobs)} bottoms and the selector",
                remedy="Give a top for each.",
            )
        if not selector or any(extent != 1 for extent in selector[1:]):
            raise LayerError(
                f"its last bottom, the selector, has shape {show(selector)}",
                remedy="It must be a number for each item.",
            )
        for shape in blobs:
            if shape[:1] != selector[:1]:
                raise LayerError(f"a bottom of shape {show(shape)} and a selector of {selector[0]} items do not match")
        raise LayerError(
            "how many items pass it depends on the data, and ristretto knows all shapes beforehand",
            remedy="Leave the layer out and filter the data.",
        )
