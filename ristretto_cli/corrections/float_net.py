"""Corrections of the float net before it is quantized: the same function, with weights that are easier to quantize."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from ristretto_cli.corrections.batch_norm import absorb_biases
from ristretto_cli.corrections.corrector import Method
from ristretto_cli.corrections.equalization import equalize
from ristretto_cli.corrections.linear_layers import linear_layer
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array

_WORTHWHILE = 1.0  # dB by which the ratio of peak to mean square of the weights must fall, on average over the layers


def easier_weights(net: Net, methods: Collection[Method]) -> dict[str, Array]:
    """Changed parameters, by Param.key, of a net that computes the same, except for float32 rounding."""
    changed: dict[str, Array] = {}
    if Method.BATCH_NORM in methods:
        changed = absorb_biases(net)
    if Method.EQUALIZATION in methods:
        equalized = equalize(replace(net, weights={**net.weights, **changed}))
        if _peak_to_mean(net, {}) - _peak_to_mean(net, equalized) >= _WORTHWHILE:
            changed.update(equalized)
    return changed


def _peak_to_mean(net: Net, changed: Mapping[str, Array]) -> float:
    """The mean over the products of the ratio of the largest to the mean square weight, in dB.

    It tells by how much the noise of rounding exceeds what equal weights would have.
    """
    ratios = []
    for layer in net.layers:
        if layer.is_source or linear_layer(layer) is None:
            continue
        weights = changed.get(layer.params[0].key, net.weights[layer.params[0].key])
        mean = float(np.square(weights, dtype=np.float64).mean())
        if mean > 0:
            ratios.append(10 * math.log10(float(np.abs(weights).max()) ** 2 / mean))
    return sum(ratios) / len(ratios) if ratios else 0.0
