"""ConcatRistretto."""

from __future__ import annotations

from ristretto_cli.layers.concat import Concat
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.trimmed import TrimmedTops


@layer_type("ConcatRistretto")
class ConcatRistretto(TrimmedTops, Concat):
    """A Concat whose top is quantized according to quantization_param."""
