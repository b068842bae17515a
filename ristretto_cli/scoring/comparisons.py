"""Scores that need no labels: a net compared with its float net, by its classes or by its quantization noise."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import AnyArray, show
from ristretto_cli.scoring.predictions import Prediction, class_axis_of, predictions

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class Comparison(ABC):
    """A comparison of a blob of a net with that of the float net; higher scores are better."""

    blob: str

    kind: ClassVar[str]
    meaning: ClassVar[str]
    size: ClassVar[int]  # the number of values per batch

    @property
    def name(self) -> str:
        """The name of the score, as --score takes it."""
        return f"{self.kind}:{self.blob}"

    @abstractmethod
    def measure(self, expected: AnyArray, found: AnyArray) -> AnyArray:
        """The values of a batch, which are summed over the batches. expected: the float net's blob."""

    @abstractmethod
    def score(self, sums: AnyArray, batches: int) -> float:
        """The score of so many batches from the sums of their values."""


@dataclass(frozen=True)
class Agreement(Comparison):
    """The share of images, or of positions, whose highest class score is that of the same class. NaN agrees never."""

    axis: int

    kind = "agreement"
    meaning = "the share of images with the class of the float net"
    size = 1

    def measure(self, expected: AnyArray, found: AnyArray) -> AnyArray:
        same = (expected.argmax(self.axis) == found.argmax(self.axis)) & ~np.isnan(found.max(self.axis))
        return np.array([same.mean() if same.size else 1.0], np.float64)  # there may be nothing that passes a Filter

    def score(self, sums: AnyArray, batches: int) -> float:
        return float(sums[0] / batches)


@dataclass(frozen=True)
class SignalToNoise(Comparison):
    """The power of the float net's blob, relative to that of the difference, in dB: infinite if there is none."""

    kind = "sqnr"
    meaning = "the signal to quantization noise ratio against the float net, in dB"
    size = 2

    def measure(self, expected: AnyArray, found: AnyArray) -> AnyArray:
        signal = np.asarray(expected, np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            noise = signal - found
            return np.array([np.square(signal).sum(), np.square(noise).sum()])

    def score(self, sums: AnyArray, batches: int) -> float:
        signal, noise = float(sums[0]), float(sums[1])
        if not (math.isfinite(signal) and math.isfinite(noise)):
            return math.nan
        if noise == 0:
            return math.inf
        return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


_KINDS = (Agreement.kind, SignalToNoise.kind)


def names_comparison(net: Net, score: str) -> bool:
    """Whether a score is a comparison, not an output of the net."""
    return score.partition(":")[0] in _KINDS and score not in (output.name for output in net.outputs)


def comparison_of(net: Net, score: str) -> Comparison | None:
    """The comparison that a score names: agreement or sqnr, or one of them with a blob, agreement:prob.

    Without a blob it is the net's prediction at the end of the longest path, which is logged. None for other names,
    and for those of the net's outputs. Raises RistrettoError for a blob that cannot be compared.
    """
    kind, colon, blob = score.partition(":")
    if kind not in _KINDS:
        return None
    if score in (output.name for output in net.outputs):
        log.warning(
            'The net has an output "%s", which is the score. --score %s:BLOB compares the net with the float net.',
            score,
            kind,
        )
        return None
    if colon:
        return _named(net, kind, blob)
    return _default(net, kind)


def default_comparison(net: Net) -> Comparison | None:
    """The agreement of a net without heads whose deepest output is a Softmax; None for other nets."""
    found = predictions(net)
    return _default(net, Agreement.kind) if found and found[0].has_classes else None


def companions(net: Net, judged: Comparison | None = None) -> list[Comparison]:
    """The signal to noise ratios of all predictions of a net, to show beside the comparison that nets are judged by."""
    return [ratio for each in predictions(net) if (ratio := SignalToNoise(each.blob.name)) != judged]


def comparisons_for(net: Net, score: str | None) -> list[Comparison]:
    """The comparisons of a net with another one: that which a score names, or by default all.

    These are the agreement, if the net has class scores, and the signal to noise ratio of each prediction. Raises
    RistrettoError for a name that is neither, and for a blob that cannot be compared.
    """
    if score is None:
        has_classes = any(each.has_classes for each in predictions(net))
        classes = [_default(net, Agreement.kind)] if has_classes else []
        return [*classes, *(companions(net) or [_default(net, SignalToNoise.kind)])]
    kind, colon, blob = score.partition(":")
    if kind not in _KINDS:
        raise RistrettoError(
            f'"{score}" does not compare two nets', hint="Use --score agreement or --score sqnr, or agreement:BLOB."
        )
    return [_named(net, kind, blob) if colon else _default(net, kind)]


def _default(net: Net, kind: str) -> Comparison:
    found = predictions(net)
    if kind == Agreement.kind:
        classes = [each for each in found if each.class_axis is not None and each.blob.shape[each.class_axis] > 1]
        found = [each for each in classes if each.has_classes] or classes
    if not found:
        what = "class scores" if kind == Agreement.kind else "outputs in the graph"
        other = " For other outputs use --score sqnr." if kind == Agreement.kind else ""
        raise RistrettoError(
            f"the net has no {what} that --score {kind} could compare",
            where=net.file,
            hint=f"Name a blob with --score {kind}:BLOB.{other}",
        )
    if len(found) > 1:
        log.warning(
            "The net has %d predictions. %s is that of %s, at the end of the longest path; others: %s. "
            "Choose with --score %s:BLOB.",
            len(found),
            kind,
            found[0].blob.name,
            ", ".join(each.blob.name for each in found[1:]),
            kind,
        )
    return _comparison(kind, found[0])


def _named(net: Net, kind: str, name: str) -> Comparison:
    tops = {top.name: (layer, top) for layer in net.layers for top in layer.tops}
    if name not in tops:
        near = did_you_mean(name, tops)
        what = f'the net has no blob "{name}" for --score {kind}'
        raise RistrettoError(what, where=net.file, hint=near or f"Outputs: {', '.join(b.name for b in net.outputs)}.")
    layer, blob = tops[name]
    if layer.is_source or blob.on_host:
        why = "comes from the data" if layer.is_source else f"is computed by a {layer.type} layer, outside the graph"
        raise RistrettoError(
            f"--score {kind}:{name} is not possible: the blob {why}", where=net.file, hint="Name another blob."
        )
    return _comparison(kind, Prediction(blob, class_axis_of(net, blob), False))


def _comparison(kind: str, of: Prediction) -> Comparison:
    name, axis = of.blob.name, of.class_axis
    if kind == SignalToNoise.kind:
        return SignalToNoise(name)
    if axis is None or of.blob.shape[axis] < 2:
        raise RistrettoError(
            f'--score {kind}:{name} is not possible: "{name}" ({show(of.blob.shape)}) has no scores of several classes',
            hint="Use --score sqnr, or name another blob.",
        )
    return Agreement(name, axis)
