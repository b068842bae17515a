"""Encoding of boxes as offsets to prior boxes, and decoding of these: SSD's code_type."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.ops import AnyArray, Ops, Shape, V, show


def count_priors(shapes: Sequence[Shape], owners: int, classes: int) -> int:
    """The number of prior boxes P of offsets (N, P * owners * 4), scores (N, P * classes) and priors (1, 2, P * 4).

    LayerError for bottoms of other shapes.
    """
    loc, conf, prior = shapes
    if len(prior) != 3 or prior[:2] != (1, 2) or prior[2] % 4:
        raise LayerError(f"its third bottom is {show(prior)}; expected PriorBox's (1, 2, boxes * 4)")
    priors = prior[2] // 4
    for name, shape, each in (("first", loc, owners * 4), ("second", conf, classes)):
        if len(shape) < 2 or shape[0] != loc[0] or prod(shape[1:]) != priors * each:
            raise LayerError(
                f"its {name} bottom is {show(shape)}; for {priors} boxes it needs {priors * each} numbers per image"
            )
    return priors


def decode(ops: Ops[V], offsets: V, prior: V, code: str, *, scaled: bool) -> V:
    """The decoded boxes: left, top, right, bottom. offsets (N, L, P, 4), prior (1, 2, P * 4) to (N, L, P, 4).

    code: CORNER (corners shifted), CORNER_SIZE (by fractions of the size), CENTER_SIZE (centre shifted by fractions
    of the size, size multiplied by an exponential). scaled: whether offsets are multiplied by the variances.
    """
    count = offsets.shape[2]
    box, variance = (ops.reshape(ops.slice(prior, 1, row, row + 1), (1, 1, count, 4)) for row in (0, 1))
    if scaled:
        offsets = ops.mul(offsets, variance)
    if code == "CORNER":
        return ops.add(box, offsets)
    low, high = _halves(ops, box)
    size = ops.sub(high, low)
    if code == "CORNER_SIZE":
        return ops.add(box, ops.mul(offsets, ops.concat([size, size], 3)))
    half = ops.constant(0.5)
    move, grow = _halves(ops, offsets)
    centre = ops.add(ops.mul(move, size), ops.mul(ops.add(low, high), half))
    reach = ops.mul(ops.mul(ops.exp(grow), size), half)
    return ops.concat([ops.sub(centre, reach), ops.add(centre, reach)], 3)


def _halves(ops: Ops[V], x: V) -> tuple[V, V]:
    return ops.slice(x, 3, 0, 2), ops.slice(x, 3, 2, 4)


def encoded(boxes: AnyArray, priors: AnyArray, code: str) -> AnyArray:
    """The offsets that decode to the boxes, not divided by variances; boxes and their priors (N, 4), in float64."""
    if code == "CORNER":
        return np.asarray(boxes - priors)
    sizes: AnyArray = priors[:, 2:] - priors[:, :2]
    with np.errstate(all="ignore"):
        if code == "CORNER_SIZE":
            return np.asarray((boxes - priors) / np.tile(sizes, 2))
        moves = (boxes[:, :2] + boxes[:, 2:] - priors[:, :2] - priors[:, 2:]) / (2 * sizes)
        return np.hstack([moves, np.log((boxes[:, 2:] - boxes[:, :2]) / sizes)])


def decoded(offsets: AnyArray, priors: AnyArray, code: str) -> AnyArray:
    """`decode` for arrays (N, 4); offsets: already multiplied by the variances, if they are to be."""
    if code == "CORNER":
        return np.asarray(priors + offsets)
    sizes: AnyArray = priors[:, 2:] - priors[:, :2]
    if code == "CORNER_SIZE":
        return np.asarray(priors + offsets * np.tile(sizes, 2))
    with np.errstate(all="ignore"):
        centres = offsets[:, :2] * sizes + (priors[:, :2] + priors[:, 2:]) / 2
        halves = np.exp(offsets[:, 2:]) * sizes / 2
        return np.hstack([centres - halves, centres + halves])
