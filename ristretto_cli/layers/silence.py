"""Silence."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.layers.host_layer import Compute, HostLayer
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Shape


@layer_type("Silence")
class Silence(HostLayer):
    """No computation: consumes blobs of any shapes, so that they are not outputs of the net."""

    bottoms = (1, None)
    tops = (0, 0)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return []

    def start(self, layer: Layer) -> Compute:
        return lambda bottoms: []
