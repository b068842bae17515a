"""ScaleRistretto."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import ChannelAffine, layer_type
from ristretto_cli.layers.scale import Scale
from ristretto_cli.layers.trimmed import Trimmed
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array


@layer_type("ScaleRistretto")
class ScaleRistretto(Trimmed, Scale):
    """A Scale whose bottoms, parameters and top are quantized according to quantization_param."""

    def channel_affine(self, layer: Layer, params: Sequence[Array]) -> ChannelAffine:
        raise LayerError("its values are trimmed")
