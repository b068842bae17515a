"""The second operand of Scale and Bias: it covers neighbouring axes of the first, repeated along the rest."""

from __future__ import annotations

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.ops import Ops, Shape, V, show


def covered(shape: Shape, axis: int, num_axes: int) -> Shape:
    """The extents of `num_axes` axes of `shape` from `axis` on; num_axes -1 means all to the end.

    LayerError if there are fewer.
    """
    start = canonical_axis(axis, shape)
    if num_axes < -1:
        raise LayerError(f"num_axes is {num_axes}", hint="Use 0 or more, or -1 for all axes to the end.")
    if num_axes == -1:
        return shape[start:]
    if start + num_axes > len(shape):
        raise LayerError(
            f"{num_axes} axes from axis {start} on extend past the end of the bottom's shape {show(shape)}",
            hint=f"Set num_axes to at most {len(shape) - start}, or to -1 for all axes to the end.",
        )
    return shape[start : start + num_axes]


def spread(ops: Ops[V], operand: V, shape: Shape, axis: int) -> V:
    """The operand, which covers `shape` from `axis` on, reshaped to broadcast with it.

    A scalar operand fits anywhere, regardless of `axis`. LayerError if an extent differs.
    """
    if not operand.shape:
        return operand
    start = canonical_axis(axis, shape)
    end = start + len(operand.shape)
    if shape[start:end] != operand.shape:
        raise LayerError(
            f"an operand of shape {show(operand.shape)} does not fit a bottom of shape {show(shape)} at axis {start}",
            hint="Set axis to the first of the matching axes.",
        )
    return ops.reshape(operand, operand.shape + (1,) * (len(shape) - end))
