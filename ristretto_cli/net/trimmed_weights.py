"""Trimmed weights: a net's weights as its quantized layers use them, for saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.net.ir import Net
from ristretto_cli.net.param_formats import ParamFormat, ParamQuantizer, shared_formats
from ristretto_cli.ops import Array


def trimmed_weights(net: Net, weights: Mapping[str, Array], *, rng: np.random.Generator) -> dict[str, Array]:
    """The weights by Param.key, quantized as in phase TEST.

    Quantizing them again does not change them, so the net's scores stay the same. A parameter that layers share with
    different formats, or whose format is not elementwise, is returned unchanged. rng: for rounding_scheme STOCHASTIC.
    """
    in_test = replace(net, layers=tuple(replace(layer, phase=TEST) for layer in net.layers))
    formats = shared_formats(in_test)
    quantizer = ParamQuantizer(rng)
    quantized = {}
    for key, array in weights.items():
        param_format = formats.get(key)
        if param_format is None or not param_format.number_format.elementwise:
            quantized[key] = array
        else:
            quantized[key] = _stable(quantizer, key, array, param_format)
    return quantized


def _stable(quantizer: ParamQuantizer, key: str, array: Array, param_format: ParamFormat) -> Array:
    """The quantized array, except for elements that quantizing again would change: those are not quantized."""
    once = quantizer.quantize(key, array, param_format)
    # A minifloat that is rounded up past the largest number saturates the next time.
    again = quantizer.quantize(key, once, replace(param_format, rounding=Rounding.NEAREST))
    return np.where(again == once, once, array).astype(np.float32, copy=False)
