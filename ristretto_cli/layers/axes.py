"""Axis settings of layers: negative numbers count from the end, as in Caffe."""

from __future__ import annotations

from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Shape, show


def canonical_axis(axis: int, shape: Shape, *, setting: str = "axis") -> int:
    """The axis of `shape` given by a setting, counted from 0. LayerError if it does not exist."""
    axes = len(shape)
    if axes == 0:
        raise LayerError(
            f"{setting} {axis} does not exist: the bottom is a scalar, without axes",
            hint="Use a bottom with at least one axis.",
        )
    if not -axes <= axis < axes:
        raise LayerError(
            f"{setting} {axis} is out of range for a bottom of shape {show(shape)}",
            hint=f"Use a number from {-axes} to {axes - 1}.",
        )
    return axis % axes


def either_axis(axis: int | None, old: int | None, default: int, shape: Shape, *, old_setting: str) -> int:
    """The axis given by `axis` or by its older unsigned setting; None means not set.

    LayerError if both are set, or if the one that is set is not an axis of `shape`.
    """
    if axis is not None and old is not None:
        raise LayerError(f"axis and {old_setting} are both set", hint=f"Remove {old_setting}.")
    if old is None:
        return canonical_axis(default if axis is None else axis, shape)
    return canonical_axis(old, shape, setting=old_setting)
