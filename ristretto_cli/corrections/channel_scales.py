"""Scales of channels in front of a BatchNorm, which takes them back: each channel then uses the formats best."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.corrections.rounding_to import round_to
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.ops import AnyArray

_FACTORS = 2.0 ** np.arange(-2, 2.6, 0.25)  # of the scale at which the largest weight is the largest number
_LENGTHS = range(-6, 7)  # added to the fractional length of outputs


@dataclass(frozen=True)
class ChannelScales:
    """scales: (G, O). layer_out: the format for the scaled outputs; None if they are not quantized."""

    scales: AnyArray
    layer_out: Fixed | None


def channel_scales(
    weights: AnyArray, moments: AnyArray, outputs: AnyArray, params: Fixed, layer_out: Fixed | None
) -> ChannelScales:
    """The scales with the smallest sum of the channels' squared errors, relative to their variances.

    weights: (G, O, D). moments: (G, D, D), of the inputs. outputs: (G, N, O), a sample. params: the weights' format,
    which the scaled weights keep.
    """
    largest = np.abs(weights).max(2)
    limit = params.grid().largest  # that of one bit is negative
    fitting = limit / np.where(largest > 0, largest, limit)
    variances = outputs.var(1)
    live = variances > 0
    relative = np.where(live, 1 / np.where(live, variances, 1.0), 0.0)
    all_scales = fitting * _FACTORS[:, None, None]
    of_weights = np.empty_like(all_scales)
    for i, scales in enumerate(all_scales):
        errors = round_to(params)(weights * scales[:, :, None]) / scales[:, :, None] - weights
        of_weights[i] = ((errors @ moments) * errors).sum(2) * relative
    candidates: list[Fixed | None] = [None]
    if layer_out is not None:
        candidates = [replace(layer_out, frac_bits=layer_out.frac_bits + more) for more in _LENGTHS]
    best, smallest = ChannelScales(fitting, layer_out), np.inf
    for candidate in candidates:
        total = of_weights.copy()
        if candidate is not None:
            for i, scales in enumerate(all_scales):
                errors = round_to(candidate)(outputs * scales[:, None]) / scales[:, None] - outputs
                total[i] += np.square(errors).mean(1) * relative
        choice = total.argmin(0)[None]
        error = float(np.take_along_axis(total, choice, 0).sum())
        if error < smallest:
            best, smallest = ChannelScales(np.take_along_axis(all_scales, choice, 0)[0], candidate), error
    return best
