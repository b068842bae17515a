"""Trimmed weights: what a net's layers make of its weights when it is scored, to be saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.net.ir import Net
from ristretto_cli.net.trims import ParamTrim, ParamTrimmer, param_trims
from ristretto_cli.ops import Array


def trimmed_weights(net: Net, weights: Mapping[str, Array], *, rng: np.random.Generator) -> dict[str, Array]:
    """The weights by Param.key, each on the grid of its layer, as scoring the net rounds them.

    Trimming them once more changes nothing, so that the net scores the same with them. A parameter that several layers
    share and trim differently is left as it is. rng: for rounding_scheme STOCHASTIC.
    """
    trims: dict[str, list[ParamTrim | None]] = {}
    for layer in net.layers:
        for param, trim in zip(layer.params, param_trims(replace(layer, phase=TEST)), strict=True):
            trims.setdefault(param.key, []).append(trim)
    trimmer = ParamTrimmer(rng)
    trimmed = {}
    for key, array in weights.items():
        first, *others = trims.get(key, [None])
        same = first is None or any(other != first for other in others)
        trimmed[key] = array if first is None or same else _stable(trimmer, key, array, first)
    return trimmed


def _stable(trimmer: ParamTrimmer, key: str, array: Array, trim: ParamTrim) -> Array:
    """The array, trimmed, except for elements that another trim would change again: those stay as they are."""
    trimmed = trimmer.trim(key, array, trim)
    # A minifloat that was rounded up beyond the top would come down the next time.
    again = trimmer.trim(key, trimmed, replace(trim, rounding=Rounding.NEAREST))
    return np.where(again == trimmed, trimmed, array).astype(np.float32, copy=False)
