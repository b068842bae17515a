"""EltwiseRistretto."""

from __future__ import annotations

from ristretto_cli.layers.eltwise import Eltwise
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.trimmed import TrimmedTops


@layer_type("EltwiseRistretto")
class EltwiseRistretto(TrimmedTops, Eltwise):
    """An Eltwise whose top is quantized according to quantization_param."""
