"""Crop."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Crop")
class Crop(LayerType):
    """The first bottom, cropped to the second's extents on all axes from `axis` on, starting at the offsets.

    offset: none (0), one for all these axes, or one per axis.
    """

    bottoms = (2, 2)
    without_gradient = (1,)

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        x, reference = bottoms
        param = layer.message.crop_param
        start = canonical_axis(param.axis, x.shape)
        axes = len(x.shape) - start
        offsets = list(param.offset) or [0]
        if len(offsets) == 1:
            offsets *= axes
        if len(offsets) != axes:
            raise LayerError(
                f"{len(offsets)} offset settings for {axes} axes from axis {start} on",
                hint="Set one for all these axes, or one per axis.",
            )
        if len(reference.shape) < len(x.shape):
            raise LayerError(
                f"bottom 1, of shape {show(reference.shape)}, has fewer axes than bottom 0, of shape {show(x.shape)}",
                hint="Use a second bottom with an extent for each cropped axis.",
            )
        for axis, offset in enumerate(offsets, start):
            have, want = x.shape[axis], reference.shape[axis]
            if offset + want > have:
                raise LayerError(
                    f"on axis {axis}, an extent of {want} at offset {offset} is out of bounds: bottom 0 has {have}",
                    hint="Reduce the offset, or swap the bottoms: the first one is cropped.",
                )
            if want != have:
                x = ops.slice(x, axis, offset, offset + want)
        return [x]
