"""Anchors: Faster R-CNN's reference boxes, several at each position of a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Array

MAX_ANCHORS = 2**22  # all of them become constants of the graph


def anchors_of(base: int, ratios: Sequence[float], scales: Sequence[float], *, ties_to_even: bool) -> Array:
    """Left, top, right, bottom of the boxes at the first position, (ratios * scales, 4), in pixels, inclusive.

    For each ratio of height to width, a box with an area of about base^2 and rounded sides, then, for each scale, that
    box multiplied by it; all centred on the first base x base pixels. ties_to_even: how halves are rounded
    (otherwise up). LayerError for invalid ratios or scales.
    """
    for name, values in (("ratio", ratios), ("scale", scales)):
        if not values or any(not 0 < value < inf for value in values):
            raise LayerError(f"each {name} must be more than 0, with at least one given", hint="Check its anchors.")
    if len(ratios) * len(scales) > MAX_ANCHORS:
        raise _too_many(len(ratios) * len(scales))
    ratio = np.asarray(ratios, np.float64)[:, None]
    width = _rounded(np.sqrt(base * base / ratio), ties_to_even)
    height = _rounded(width * ratio, ties_to_even)
    scale = np.asarray(scales, np.float64)
    half = np.stack([width * scale - 1, height * scale - 1], axis=-1).reshape(-1, 2) / 2
    centre = (base - 1) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    if not (np.abs(boxes) < np.finfo(np.float32).max / 4).all():
        raise LayerError("its anchors are too large for float32", hint="Check its ratios and scales.")
    return boxes.astype(np.float32)


def shifted(anchors: Array, height: int, width: int, stride: float) -> Array:
    """The anchors of every position, `stride` pixels apart: by row, column, anchor, (height * width * A, 4)."""
    count = len(anchors) * height * width
    if count > MAX_ANCHORS:
        raise _too_many(count)
    across, down = np.meshgrid(np.arange(width) * stride, np.arange(height) * stride)
    places = np.stack([across, down, across, down], axis=-1).reshape(-1, 1, 4)
    return (places + anchors).reshape(-1, 4).astype(np.float32)


def _rounded(x: np.ndarray, ties_to_even: bool) -> np.ndarray:
    return np.round(x) if ties_to_even else np.floor(x + 0.5)


def _too_many(count: int) -> LayerError:
    return LayerError(f"{count} anchors are too many; the maximum is {MAX_ANCHORS}")
