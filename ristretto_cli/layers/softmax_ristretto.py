"""SoftmaxRistretto."""

from __future__ import annotations

from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.softmax import Softmax
from ristretto_cli.layers.trimmed import TrimmedTops


@layer_type("SoftmaxRistretto")
class SoftmaxRistretto(TrimmedTops, Softmax):
    """A Softmax whose top is quantized according to quantization_param."""
