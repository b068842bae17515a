"""How layers name axes: negative ones count from the end, as in Caffe."""

from __future__ import annotations

from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Shape, show


def canonical_axis(axis: int, shape: Shape, *, setting: str = "axis") -> int:
    """The axis of `shape` that a setting names, counted from 0. LayerError where there is none."""
    axes = len(shape)
    if axes == 0:
        raise LayerError(
            f"{setting} {axis} does not exist: the bottom is a single number, without axes",
            remedy="Give the layer a bottom with at least one axis.",
        )
    if not -axes <= axis < axes:
        raise LayerError(
            f"{setting} {axis} is out of range for a bottom of shape {show(shape)}",
            remedy=f"Give a number from {-axes} to {axes - 1}.",
        )
    return axis % axes


def either_axis(axis: int | None, old: int | None, default: int, shape: Shape, *, old_setting: str) -> int:
    """The axis named by `axis` or by its older unsigned spelling; None is a setting that is not given.

    LayerError where both are given, or where the one that is given names no axis of `shape`.
    """
    if axis is not None and old is not None:
        raise LayerError(f"axis and {old_setting} are both set", remedy=f"Remove {old_setting}.")
    if old is None:
        return canonical_axis(default if axis is None else axis, shape)
    return canonical_axis(old, shape, setting=old_setting)
