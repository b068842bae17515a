"""Average precision of scored detections, by SSD's three definitions."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from ristretto_cli.ops import Array

_MIN_STEP = 1e-6  # recalls that differ by less are equal


class ApVersion(Enum):
    """The averaging of the precision-recall curve; the values are those of --ap_version.

    ELEVEN_POINTS, as in VOC 2007: the mean of the maximum precisions at recalls of at least 0, 0.1 ... 1. MAX_INTEGRAL,
    as in VOC 2012 and ILSVRC: the area under the maximum precisions from each recall on. INTEGRAL: the area under
    the curve itself.
    """

    ELEVEN_POINTS = "11point"
    MAX_INTEGRAL = "MaxIntegral"
    INTEGRAL = "Integral"


def average_precision(scores: Array, right: npt.NDArray[np.bool_], positives: int, version: ApVersion) -> float:
    """The average precision, 0 to 1, of detections (N) with these scores, some of which are correct.

    positives: the number of objects. The result is 0 if there are no objects or no detections. Of equal scores, the
    earlier detection comes first.
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
    # SSD's steps go down from the last recall: each is as high as the maximum precision at its end.
    return _area(np.diff(recall), best[:-1]) + float(recall[0]) * float(best[0])


def _area(steps: Array, heights: Array) -> float:
    counted = steps > _MIN_STEP
    return float(np.sum(steps[counted].astype(np.float64) * heights[counted]))
