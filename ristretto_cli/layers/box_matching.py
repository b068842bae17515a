"""Matching of boxes with objects, and greedy suppression of overlapping boxes, as in SSD's training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ristretto_cli.layers.boxes import Boxes
from ristretto_cli.ops import AnyArray, Array

Indices: TypeAlias = npt.NDArray[np.int64]

UNMATCHED, IGNORED = -1, -2

_NO_OVERLAP = 1e-6  # overlaps up to this one do not count
_MIN_AREA = 1e-5  # smaller boxes are suppressed


def positive_overlaps(boxes: Boxes, objects: Boxes) -> Array:
    """The overlaps of boxes with objects (N, M); 0 for those that do not count."""
    with np.errstate(all="ignore"):
        overlaps = np.nan_to_num(boxes.overlaps(objects), nan=0.0)
    return np.where(overlaps > _NO_OVERLAP, overlaps, np.float32(0))


def matched(overlaps: Array, threshold: float | None, ignored: AnyArray) -> Indices:
    """For each of N boxes the index of its object, or UNMATCHED, or IGNORED. overlaps: (N, M), ignored: (N,).

    First, object and box with the largest overlap are matched, again and again, each at most once; of equal overlaps
    that of the first box counts, then that of the first object. Then, if there is a threshold, each remaining box is
    matched with the object that it overlaps most, by at least the threshold.
    """
    found: Indices = np.full(len(overlaps), UNMATCHED, np.int64)
    found[ignored] = IGNORED
    if not overlaps.size:
        return found
    open_pairs = overlaps.copy()
    open_pairs[ignored] = 0
    every = np.arange(overlaps.shape[1])
    best = open_pairs.argmax(0)  # for each object
    for _ in every:
        largest = open_pairs[best, every]
        if not largest.max() > 0:
            break
        equal = np.flatnonzero(largest == largest.max())
        one = equal[best[equal].argmin()]
        box = best[one]
        found[box] = one
        open_pairs[box], open_pairs[:, one] = 0, 0
        outdated = np.flatnonzero(best == box)
        best[outdated] = open_pairs[:, outdated].argmax(0)
    if threshold is not None:
        nearest = overlaps.argmax(1)
        largest = overlaps.max(1)
        near = (found == UNMATCHED) & (largest > 0) & (largest >= np.float32(threshold))
        found[near] = nearest[near]
    return found


def suppressed(corners: Array, max_overlap: float, most: int) -> Sequence[int]:
    """The indices of boxes (N, 4), best first, after those that overlap a better one more are removed; up to `most`."""
    kept: list[int] = []
    with np.errstate(all="ignore"):
        left = np.flatnonzero(Boxes.of(corners).areas >= _MIN_AREA)
        while len(left) and len(kept) < most:
            kept.append(int(left[0]))
            best, others = Boxes.of(corners[left[:1]]), Boxes.of(corners[left[1:]])
            left = left[1:][~(best.overlaps(others)[0] > max_overlap)]
    return kept
