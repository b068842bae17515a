"""Filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.host_layer import Compute, HostLayer
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import DYNAMIC, Array, Ops, Shape, V, show


@layer_type("Filter")
class Filter(HostLayer):
    """The items of each bottom for which the last bottom, the selector, is not 0.

    Bottoms (N, ...), ..., and the selector (N, 1 ...) to (K, ...), ...: K depends on the data.
    """

    bottoms = (2, None)
    tops = (1, None)
    without_gradient = (-1,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        *blobs, selector = bottoms
        if len(layer.tops) != len(blobs):
            raise LayerError(
                f"it has {len(layer.tops)} tops for {len(blobs)} bottoms and the selector",
                hint="Use one top for each bottom except the selector.",
            )
        if not selector or any(extent not in (1, DYNAMIC) for extent in selector[1:]):
            raise LayerError(
                f"its last bottom, the selector, has shape {show(selector)}",
                hint="It must have one number per item.",
            )
        for shape in blobs:
            if not shape or (shape[0] != selector[0] and DYNAMIC not in (shape[0], selector[0])):
                raise LayerError(
                    f"a bottom of shape {show(shape)} and a selector of {show(selector[:1])} items do not match"
                )
        return [(DYNAMIC, *shape[1:]) for shape in blobs]

    def start(self, layer: Layer) -> Compute:
        def compute(bottoms: Sequence[Array]) -> Sequence[Array]:
            *blobs, selector = bottoms
            passes = self._passing(layer, [array.shape for array in bottoms], selector)
            return [blob[passes] for blob in blobs]

        return compute

    def forward_at_once(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], to_array: Callable[[V], Array]
    ) -> Sequence[V]:
        *blobs, selector = bottoms
        passes = self._passing(layer, [tuple(bottom.shape) for bottom in bottoms], to_array(selector))
        places = ops.constant(passes.astype(np.float32))
        return [ops.gather(blob, places, 0) for blob in blobs]

    def _passing(self, layer: Layer, bottoms: Sequence[Shape], selector: Array) -> npt.NDArray[np.int64]:
        """The places of the items that pass."""
        self.shapes(layer, bottoms)  # checks variable extents, which are known only now
        return np.flatnonzero(selector)
