"""Decoding of offsets to prior boxes: SSD's code_type."""

from __future__ import annotations

from ristretto_cli.ops import Ops, V


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
