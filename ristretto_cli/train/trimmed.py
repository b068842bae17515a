"""Trimmed weights: what a net's layers make of its weights when it is scored, to be saved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.formats.number_format import NumberFormat, Rounding, trims_of
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array

# What a parameter is trimmed by: its number format, None for none, and the rounding.
_Trim = tuple[NumberFormat | None, Rounding]


def trimmed_weights(net: Net, weights: Mapping[str, Array], *, rng: np.random.Generator) -> dict[str, Array]:
    """The weights by Param.key, each on the grid of its layer, as scoring the net rounds them.

    Trimming them once more changes nothing, so that the net scores the same with them. A parameter that several layers
    share and trim differently is left as it is. rng: for rounding_scheme STOCHASTIC.
    """
    trims: dict[str, list[_Trim]] = {}
    for layer in net.layers:
        for index, param in enumerate(layer.params):
            trims.setdefault(param.key, []).append(_trim(layer, index))
    trimmed = {}
    for key, array in weights.items():
        (number_format, rounding), *others = trims.get(key, [(None, Rounding.NEAREST)])
        alike = all(other == (number_format, rounding) for other in others)
        same = number_format is None or not alike
        trimmed[key] = array if same else _on_grid(array, number_format, rounding, rng)
    return trimmed


def _trim(layer: Layer, index: int) -> _Trim:
    if not LAYERS.get(layer.type).trims:
        return None, Rounding.NEAREST
    trims = trims_of(layer.message.quantization_param)
    return (trims.weights if index == 0 else trims.bias), trims.rounding


def _on_grid(array: Array, number_format: NumberFormat | None, rounding: Rounding, rng: np.random.Generator) -> Array:
    if number_format is None:
        return array
    ops = numpy_ops(rng)
    trimmed = number_format.trim(ops, array, rounding)
    # A minifloat that was rounded up beyond the top would come down the next time: such numbers stay as they are.
    again = number_format.trim(ops, trimmed, Rounding.NEAREST)
    return np.where(again == trimmed, trimmed, array).astype(np.float32, copy=False)
