"""Class scores of few bits: a number added to all scores of an image changes no probability, but may save a bit.

Class scores are seldom symmetric about 0. The largest ones decide; if they are moved down to the upper end of the
format, it can have a finer step, and scores far below saturate without harm. The number may differ between images, so
it can come from the weights: the same vector added to those of all classes. Biases often have no room for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ristretto_cli.corrections.divergence import class_divergence
from ristretto_cli.corrections.rounding_to import round_to
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.ops import AnyArray

_FINER = (0, 1, 2)  # added to the fractional length
_HEADROOM = (0.1, 0.0, -0.1, -0.2)  # of the spread of the largest scores, above the largest one
_NEARLY = 1.2  # times the least divergence
_INVARIANT = {"Softmax": "softmax_param", "SoftmaxWithLoss": "softmax_param", "Accuracy": "accuracy_param"}


def is_class_scores(net: Net, layer: Layer) -> bool:
    """Whether only layers that a constant added to all scores does not change read the only top of a layer, (N, C)."""
    if len(layer.tops) != 1:
        return False
    (top,) = layer.tops
    readers = [each for each in net.layers if any(blob.storage == top.storage for blob in each.bottoms)]
    writers = [each for each in net.layers if any(blob.storage == top.storage for blob in each.tops)]
    return (
        len(top.shape) == 2
        and bool(readers)
        and all(_is_invariant(reader, top) for reader in readers)
        and writers == [layer]
    )


def _is_invariant(reader: Layer, scores: Blob) -> bool:
    if reader.type not in _INVARIANT or reader.bottoms[0].storage != scores.storage:
        return False
    return canonical_axis(getattr(reader.message, _INVARIANT[reader.type]).axis, scores.shape) == 1


def shifted_scores(scores: AnyArray, profile: AnyArray, layer_out: Fixed) -> tuple[float, Fixed]:
    """The multiple of a profile (N) to add to class scores (N, C), and their format.

    Of the candidates with nearly the least divergence it is the one with the fewest ties for the first place, which
    Accuracy counts as errors.
    """
    largest = scores.max(1)
    spread = float(largest.max() - np.median(largest))
    candidates = [(0.0, layer_out)]
    for finer in _FINER:
        candidate = replace(layer_out, frac_bits=layer_out.frac_bits + finer)
        shifts = (candidate.largest - (float(largest.max()) + headroom * spread) for headroom in _HEADROOM)
        candidates += [(min(0.0, shift), candidate) for shift in shifts]
    rounded = [round_to(number_format)(scores + shift * profile[:, None]) for shift, number_format in candidates]
    divergences = [class_divergence(scores, each, 1) for each in rounded]
    limit = _NEARLY * min(divergences)
    allowed = [i for i, divergence in enumerate(divergences) if divergence <= limit]
    return candidates[min(allowed, key=lambda i: (_ties(rounded[i]), divergences[i]))]


def _ties(scores: AnyArray) -> int:
    """The number of rows with more than one largest score."""
    return int(((scores == scores.max(1, keepdims=True)).sum(1) > 1).sum())
