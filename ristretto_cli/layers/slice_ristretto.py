"""SliceRistretto."""

from __future__ import annotations

from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.slice import Slice
from ristretto_cli.layers.trimmed import TrimmedTops


@layer_type("SliceRistretto")
class SliceRistretto(TrimmedTops, Slice):
    """A Slice whose first top is quantized according to quantization_param."""

    trimmed_tops = 1  # as in the fork that defines it
