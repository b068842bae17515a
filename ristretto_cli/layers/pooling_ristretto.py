"""PoolingRistretto."""

from __future__ import annotations

from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.pooling import Pooling
from ristretto_cli.layers.trimmed import TrimmedTops


@layer_type("PoolingRistretto")
class PoolingRistretto(TrimmedTops, Pooling):
    """A Pooling whose first top is quantized according to quantization_param."""

    trimmed_tops = 1  # not the mask
