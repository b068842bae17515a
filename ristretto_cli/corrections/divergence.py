"""The divergence of a net's outputs from the float net's, and the descent over fractional lengths by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.predictions import Prediction, predictions

_MIN_GAIN = 0.02  # of the divergence, on both halves of the images


def prediction_of(net: Net) -> Prediction | None:
    """The prediction at the end of the longest path; None if the net has none."""
    return next(iter(predictions(net)), None)


class Divergence:
    """The divergence from some outputs of the float net, batch by batch.

    Kullback-Leibler between the probabilities of classes, if the outputs are class scores, otherwise the squared error.
    """

    def __init__(self, prediction: Prediction, outputs: Sequence[Array]) -> None:
        self.prediction = prediction
        self._outputs = outputs

    def __len__(self) -> int:
        return len(self._outputs)

    def __call__(self, batch: int, output: Array) -> float:
        """The mean divergence over a batch."""
        axis, expected = self.prediction.class_axis, self._outputs[batch]
        if axis is None or not self.prediction.has_classes:
            return float(np.square(output - expected, dtype=np.float64).mean())
        return class_divergence(expected, output, axis)


def class_divergence(expected: AnyArray, found: AnyArray, axis: int) -> float:
    """The mean Kullback-Leibler divergence between the softmax of two arrays of class scores."""
    ours, theirs = _log_softmax(found, axis), _log_softmax(expected, axis)
    return float((np.exp(theirs) * (theirs - ours)).sum(axis).mean())


def _log_softmax(scores: AnyArray, axis: int) -> AnyArray:
    shifted = scores.astype(np.float64) - scores.max(axis, keepdims=True)
    result: AnyArray = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return result


Measure: TypeAlias = Callable[[Fixed, int], float]  # the divergence of a batch with a format


def descend(start: Fixed, batches: int, measure: Measure) -> Fixed:
    """The format, from `start` in steps of the fractional length, that no step improves on both halves of the batches.

    A single batch is not enough to tell, and leaves the format as it is.
    """
    if batches < 2:
        return start

    def divergences(candidate: Fixed) -> AnyArray:
        return np.array([measure(candidate, batch) for batch in range(batches)])

    chosen, least = start, divergences(start)
    for direction in (1, -1):
        while True:
            candidate = replace(chosen, frac_bits=chosen.frac_bits + direction)
            found = divergences(candidate)
            # Not >=: with NaN, the descent ends.
            if not all(found[half::2].mean() < (1 - _MIN_GAIN) * least[half::2].mean() for half in (0, 1)):
                break
            chosen, least = candidate, found
        if chosen != start:
            break
    return chosen
