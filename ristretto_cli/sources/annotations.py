"""Annotations of an image: object boxes, and their changes when the image is resized, cropped or mirrored.

Everything is computed in float32, in SSD's order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.messages import Message, enum_name
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import Array
from ristretto_cli.sources.resize_param import Fit, Resize

COLUMNS = 8  # item_id, group_label, instance_id, xmin, ymin, xmax, ymax, difficult

WHOLE: Array = np.array([0, 0, 1, 1], np.float32)

_XS, _YS = slice(0, 4, 2), slice(1, 4, 2)
_LOW, _HIGH = slice(0, 2), slice(2, 4)


@dataclass(frozen=True)
class AnnotatedBoxes:
    """The M boxes of an image, in the record's order.

    names (M, 2): group_label (the class) and instance_id. corners (M, 4): xmin, ymin, xmax, ymax, relative to the
    image. difficult (M,): 1 or 0. sizes (M,): the area that a box states, NaN if it states none.
    """

    names: Array
    corners: Array
    difficult: Array
    sizes: Array

    @classmethod
    def of(cls, annotated: Message, where: str) -> AnnotatedBoxes:
        """The boxes of an AnnotatedDatum; RistrettoError, with the location, for corners that are not finite."""
        table = np.array([_row(group, one) for group in annotated.annotation_group for one in group.annotation])
        table = table.reshape(-1, 8)
        corners = table[:, 2:6].astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(corners).all(axis=1))
        if len(wrong):
            shown = ", ".join(f"{value:g}" for value in corners[wrong[0]].tolist())
            raise RistrettoError(f"box {wrong[0] + 1} of the record is ({shown})", where=where)
        return cls(*(part.astype(np.float32) for part in (table[:, :2], corners, table[:, 6], table[:, 7])))

    def rows(self, item: int) -> Array:
        """The boxes as rows of the label blob, (M, 8); item: the image's index in the batch."""
        items = np.full((len(self.corners), 1), item, np.float32)
        return np.hstack([items, self.names, self.corners, self.difficult[:, None]])

    def resized(self, resize: Resize, height: int, width: int) -> AnnotatedBoxes:
        """The boxes on the result of resizing an image of this height and width."""
        f = np.float32
        new_height, new_width, aspect = f(resize.height), f(resize.width), f(width) / f(height)
        pad_rows = pad_columns = f(0)
        if resize.fit is Fit.PAD:
            if aspect > new_width / new_height:
                pad_rows = (new_height - new_width / aspect) / f(2)
            else:
                pad_columns = (new_width - aspect * new_height) / f(2)
        elif resize.fit is Fit.COVER:
            # The image's own sides are rounded down to whole pixels; here they are not.
            if aspect < new_width / new_height:
                new_height = new_width / aspect
            else:
                new_width = aspect * new_height
        corners = np.empty_like(self.corners)
        with np.errstate(over="ignore"):
            corners[:, _XS] = _placed(self.corners[:, _XS] * f(width), f(width), new_width, pad_columns)
            corners[:, _YS] = _placed(self.corners[:, _YS] * f(height), f(height), new_height, pad_rows)
        return replace(self, corners=corners)

    def seen(self, window: Array, constraint: Message | None) -> AnnotatedBoxes:
        """The boxes visible in a window (xmin, ymin, xmax, ymax), clipped and relative to it.

        constraint: the EmitConstraint that selects boxes beforehand.
        """
        kept = self if constraint is None else self._where(self._emitted(window, constraint))
        touching = np.all((kept.corners[:, _LOW] < window[_HIGH]) & (kept.corners[:, _HIGH] > window[_LOW]), axis=1)
        kept = kept._where(np.asarray(touching))
        extent = np.tile(window[_HIGH] - window[_LOW], 2)
        with np.errstate(over="ignore"):
            parts = np.divide(kept.corners - np.tile(window[_LOW], 2), extent, dtype=np.float32)
        corners = np.clip(parts, np.float32(0), np.float32(1))
        sizes = _areas(corners)
        return replace(kept, corners=corners, sizes=sizes)._where(sizes > 0)

    def mirrored(self) -> AnnotatedBoxes:
        """The boxes on the mirrored image."""
        corners = self.corners.copy()
        corners[:, _XS] = np.float32(1) - self.corners[:, 2::-2]
        return replace(self, corners=corners)

    def extrapolated(self, resize: Resize, height: int, width: int, window: Array, where: str) -> AnnotatedBoxes:
        """The boxes relative to height_scale and width_scale, if a FIT_SMALL_SIZE has them.

        height, width: of the image before resizing. RistrettoError, with the location, if the window is smaller.
        """
        if resize.fit is not Fit.COVER or not (resize.height_scale and resize.width_scale and len(self.corners)):
            return self
        f = np.float32
        new_height, new_width, aspect = f(resize.height), f(resize.width), f(width) / f(height)
        if aspect < new_width / new_height:
            new_height = new_width / aspect
        else:
            new_width = new_height * aspect
        shown = np.array([new_width, new_height]) * (window[_HIGH] - window[_LOW])
        scale = np.array([resize.width_scale, resize.height_scale], np.float32)
        if (shown < scale).any():
            raise RistrettoError(
                f"the visible part of the image is {shown[1]:g}x{shown[0]:g}, but height_scale and width_scale are "
                f"{resize.height_scale} and {resize.width_scale}",
                where=where,
                hint="They must not be larger.",
            )
        return replace(self, corners=self.corners * np.tile(shown, 2) / np.tile(scale, 2))

    def _emitted(self, window: Array, constraint: Message) -> npt.NDArray[np.bool_]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if enum_name(constraint, "emit_type") == "CENTER":
                centre = (self.corners[:, _LOW] + self.corners[:, _HIGH]) / np.float32(2)
                return np.asarray(np.all((centre >= window[_LOW]) & (centre <= window[_HIGH]), axis=1))
            own, shared = self._own_areas(), self._shared(window[None])[0]
            share = np.divide(shared, own, out=np.zeros_like(own), where=shared > 0)
            return np.asarray(share > np.float32(constraint.emit_overlap))

    def relations(self, windows: Array) -> tuple[Array, Array, Array]:
        """For each of W windows and each box (W, M): intersection over union, and the shares of the window and of the
        box in the intersection; 0 without one."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            own, seen, shared = self._own_areas()[None], _areas(windows)[:, None], self._shared(windows)
            wholes = (own + seen - shared, np.broadcast_to(seen, shared.shape), np.broadcast_to(own, shared.shape))
            zeros = np.zeros_like(shared)
            overlap, of_window, of_box = (
                np.divide(shared, whole, out=zeros.copy(), where=shared > 0) for whole in wholes
            )
        return overlap, of_window, of_box

    def _own_areas(self) -> Array:
        # SSD trusts the area that a box states, unless its corners are swapped.
        own = _areas(self.corners)
        return np.where(np.isnan(self.sizes) | (own == 0), own, self.sizes)

    def _shared(self, windows: Array) -> Array:
        """The area that each window shares with each box, (W, M)."""
        low = np.maximum(self.corners[None, :, _LOW], windows[:, None, _LOW])
        high = np.minimum(self.corners[None, :, _HIGH], windows[:, None, _HIGH])
        extent = high - low
        return np.asarray(np.where((extent >= 0).all(axis=2), extent[..., 0] * extent[..., 1], np.float32(0)))

    def _where(self, chosen: npt.NDArray[np.bool_]) -> AnnotatedBoxes:
        return AnnotatedBoxes(self.names[chosen], self.corners[chosen], self.difficult[chosen], self.sizes[chosen])


def _row(group: Message, annotation: Message) -> tuple[float, ...]:
    box = annotation.bbox
    size = box.size if box.HasField("size") else float("nan")
    corners = (box.xmin, box.ymin, box.xmax, box.ymax)
    return (group.group_label, annotation.instance_id, *corners, float(box.difficult), size)


def _placed(ends: Array, old: np.float32, new: np.float32, padding: np.float32) -> Array:
    """Low and high ends (M, 2) on an axis of `old` pixels relative to one of `new`, with padding at both ends."""
    ends = (ends * (new - np.float32(2) * padding) / old).astype(np.float32)
    low = padding + np.maximum(ends[:, :1], np.float32(0))
    high = padding + np.minimum(ends[:, 1:], new)
    return np.asarray(np.hstack([low, high]) / new, np.float32)


def _areas(corners: Array) -> Array:
    """The areas of boxes (M, 4); 0 if corners are swapped."""
    extent = corners[:, _HIGH] - corners[:, _LOW]
    return np.where((extent >= 0).all(axis=1), extent[:, 0] * extent[:, 1], np.float32(0))
