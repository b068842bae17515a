"""Adaptive rounding of one layer: its weights and biases for the quantized net's inputs and the float net's outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.corrections.adaptive_rounding import adaptive_rounding, squared_error
from ristretto_cli.corrections.channel_scales import channel_scales
from ristretto_cli.corrections.layer_moments import LayerMoments
from ristretto_cli.corrections.rounding_to import round_to
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.number_format import LayerFormats, NumberFormat
from ristretto_cli.ops import AnyArray

# Few images determine the weights of many inputs badly: without damping they are fitted to these images.
_DAMPING = 0.01  # of the mean second moment, if there are enough images
_ENOUGH = 10  # places of images for each input
_SWEEPS = 6
_LENGTHS = (0, -1, 1, 2)  # added to the fractional length of weights
_LARGE = 2**33  # multiplications for a column of all weights; beyond it, lengths are compared by nearest rounding


@dataclass(frozen=True)
class RoundedLayer:
    """weights: (G, O, D) and bias: (G, O), None without one. params, layer_out: the formats, as chosen. scales: (G, O),
    by which the outputs are multiplied."""

    weights: AnyArray
    bias: AnyArray | None
    params: NumberFormat
    layer_out: NumberFormat | None
    scales: AnyArray


def round_layer(
    weights: AnyArray,
    bias: AnyArray | None,
    moments: LayerMoments,
    formats: LayerFormats,
    params: NumberFormat,
    *,
    outputs: AnyArray | None,
    choose_formats: bool = True,
) -> RoundedLayer:
    """The weights and biases of a layer on the grids of their formats.

    weights: the float net's (G, O, D). bias: (G, O). params: the weights' format, whose fractional length may change.
    outputs: a sample (G, N, O) of the float net's, if a BatchNorm reads them, which takes back their mean and scale.
    choose_formats: choose fractional lengths and scales; otherwise they stay.
    """
    share = bias is not None and outputs is None and formats.bias == params
    if share:
        own, cross = moments.with_ones()
    elif bias is None and outputs is None:  # nothing corrects the mean of the outputs
        own, cross = moments.about_zero()
    else:
        own, cross = moments.centred()
    if share and bias is not None:
        weights = np.concatenate([weights, bias[:, :, None]], 2)
    diagonal = np.diagonal(own, axis1=1, axis2=2).mean(1)
    too_few = max(1.0, _ENOUGH * own.shape[1] / moments.count)
    damping = (_DAMPING * too_few * diagonal + 1e-12)[:, None, None] * np.eye(own.shape[1])
    own = own + damping
    # The least squares for the float net's outputs; damping keeps it near the float net's weights.
    target = np.linalg.solve(own, (weights @ (cross + damping)).transpose(0, 2, 1)).transpose(0, 2, 1)
    scales, layer_out = np.ones(weights.shape[:2]), formats.layer_out
    if not choose_formats or not isinstance(params, Fixed):
        pass
    elif outputs is not None and (layer_out is None or isinstance(layer_out, Fixed)):
        found = channel_scales(target, own, outputs, params, layer_out)
        scales, layer_out = found.scales, found.layer_out
        target = target * scales[:, :, None]
    else:
        params = _best_length(target, own, params)
    rounded = adaptive_rounding(target, own, round_to(params), sweeps=_SWEEPS if _is_small(target) else 1)
    if share:
        return RoundedLayer(rounded[:, :, :-1], rounded[:, :, -1], params, layer_out, scales)
    if bias is not None and outputs is None:
        # The mean of the outputs is the float net's.
        shift = np.squeeze(weights @ moments.float_mean[:, :, None] - rounded @ moments.mean[:, :, None], 2)
        bias = bias + shift if formats.bias is None else round_to(formats.bias)(bias + shift)
    return RoundedLayer(rounded, bias, params, layer_out, scales)


def _best_length(target: AnyArray, moments: AnyArray, params: Fixed) -> Fixed:
    """The format with the smallest squared error of outputs."""

    def error(candidate: Fixed) -> float:
        rounding = round_to(candidate)
        small = _is_small(target)
        rounded = adaptive_rounding(target, moments, rounding, sweeps=0) if small else rounding(target)
        return squared_error(rounded - target, moments)

    return min((replace(params, frac_bits=params.frac_bits + more) for more in _LENGTHS), key=error)


def _is_small(weights: AnyArray) -> bool:
    return bool(weights.size * weights.shape[2] <= _LARGE)
