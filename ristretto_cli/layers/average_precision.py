"""Average precision: how well scores put what is right before what is wrong, by SSD's three formulas."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from ristretto_cli.ops import Array

_LEAST_STEP = 1e-6  # recalls that differ by less are the same


class ApVersion(Enum):
    """What of the curve of precision over recall is averaged; the value is the word that --ap_version takes.

    ELEVEN_POINTS, as in VOC 2007: the mean of the best precisions at recalls of 0, 0.1 ... 1 or more. MAX_INTEGRAL,
    as in VOC 2012 and ILSVRC: the area below the best precisions from each recall on. INTEGRAL: the area below
    the curve itself.
    """

    ELEVEN_POINTS = "11point"
    MAX_INTEGRAL = "MaxIntegral"
    INTEGRAL = "Integral"


def average_precision(scores: Array, right: npt.NDArray[np.bool_], positives: int, version: ApVersion) -> float:
    """The average precision, 0 to 1, of findings (N) with these scores, of which some are right.

    positives: how many there were to be found. 0 where there were none, or nothing was found. Of equal scores, the
    earlier finding comes first.
    """
    if positives == 0 or not scores.size:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(right[order])
    # In float32 as in SSD, where a recall of 0.7 is less than the 7th of the eleven points.
    precision = (found / np.arange(1, len(order) + 1)).astype(np.float32)
    recall = (found / positives).astype(np.float32)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # from each recall on
    if version is ApVersion.ELEVEN_POINTS:
        reached = [best[recall.astype(np.float64) >= j / 10.0] for j in range(11)]
        return float(sum(float(values[0]) for values in reached if values.size) / 11)
    if version is ApVersion.INTEGRAL:
        return _area(np.diff(recall, prepend=np.float32(0)), precision)
    # SSD's steps lead from the last recall down: each is as high as the best precision where it ends.
    return _area(np.diff(recall), best[:-1]) + float(recall[0]) * float(best[0])


def _area(steps: Array, heights: Array) -> float:
    counted = steps > _LEAST_STEP
    return float(np.sum(steps[counted].astype(np.float64) * heights[counted]))
