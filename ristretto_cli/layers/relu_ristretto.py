"""ReLURistretto."""

from __future__ import annotations

from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.relu import ReLU
from ristretto_cli.layers.trimmed import TrimmedTops


@layer_type("ReLURistretto")
class ReLURistretto(TrimmedTops, ReLU):
    """A ReLU whose top is quantized according to quantization_param."""
