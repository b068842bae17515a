"""FcRistretto, and InnerProductRistretto, a fork's name of it."""

from __future__ import annotations

from ristretto_cli.layers.inner_product import InnerProduct
from ristretto_cli.layers.layer_type import layer_type


@layer_type("FcRistretto", "InnerProductRistretto")
class FcRistretto(InnerProduct):
    """An InnerProduct whose bottom, parameters and top are quantized according to quantization_param."""

    quantized = True
