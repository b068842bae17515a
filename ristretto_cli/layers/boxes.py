"""Boxes as SSD compares them: in coordinates relative to the image, or in pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ristretto_cli.caffe_io.files import open_to_read, without_mark
from ristretto_cli.caffe_io.messages import Message, enum_name
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import Array

_PIXEL = np.float32(1)


@dataclass(frozen=True)
class Boxes:
    """Boxes (N, 4) with rows of left, top, right, bottom; their areas (N); whether they are in pixels.

    A box in pixels includes the pixels of both edges.
    """

    corners: Array
    areas: Array
    in_pixels: bool

    def __len__(self) -> int:
        return len(self.corners)

    @classmethod
    def of(cls, corners: Array, *, in_pixels: bool = False) -> Boxes:
        """Boxes with the areas between their corners; 0 if the corners are swapped."""
        more = _PIXEL if in_pixels else np.float32(0)
        sides = corners[:, 2:] - corners[:, :2]
        areas = np.where((sides < 0).any(1), np.float32(0), (sides + more).prod(1))
        return cls(corners, areas, in_pixels)

    def overlaps(self, others: Boxes) -> Array:
        """Intersection over union of each box with each of the others, (N, M)."""
        a, b = self.corners[:, None], others.corners[None]
        low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
        apart = ((b[..., :2] > a[..., 2:]) | (b[..., 2:] < a[..., :2])).any(2, keepdims=True)
        # In SSD, boxes in pixels share one pixel even if they are disjoint.
        sides = np.where(apart, np.float32(0), high - low) + (_PIXEL if self.in_pixels else np.float32(0))
        common = sides.prod(2)
        union = self.areas[:, None] + others.areas[None] - common
        shares: Array = np.zeros_like(common)
        np.divide(common, union, out=shares, where=(sides > 0).all(2))
        return shares


@dataclass(frozen=True)
class ImageSizes:
    """The sizes of a database's images in order, (N, 2) with rows of height, width, and how they were
    resized for the net: SSD's resize_param, None if not set."""

    sizes: Array
    resize: Message | None

    @classmethod
    def read(cls, file: str, resize: Message | None) -> ImageSizes:
        """The sizes from a file with lines of name, height, width. LayerError if the file is invalid."""
        try:
            with open_to_read(file) as stream:
                lines = without_mark(stream.read(), file).split(b"\n")
        except RistrettoError as error:
            raise LayerError(
                f"name_size_file: {error}", hint="Without name_size_file, boxes are compared in relative coordinates."
            ) from error
        sizes = []
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if words:
                size = _size(words)
                if size is None:
                    raise LayerError(f"name_size_file: {file}:{number}: expected a name, a height and a width")
                sizes.append(size)
        if not sizes:
            raise LayerError(f"name_size_file: {file} is empty")
        return cls(np.array(sizes, np.float32), resize)

    def in_pixels(self, corners: Array, place: int) -> Boxes:
        """Boxes (N, 4), relative to the net's input, converted to pixels of the image with this index in the database.

        After the last image, indices start over from the first.
        """
        height, width = self.sizes[place % len(self.sizes)]
        whole = np.array([width, height, width, height], np.float32)
        mode = "WARP" if self.resize is None else enum_name(self.resize, "resize_mode")
        if self.resize is not None and mode == "FIT_SMALL_SIZE":
            scales = [self.resize.width_scale, self.resize.height_scale] * 2
            if all(scales):
                clipped = np.clip(corners * np.array(scales, np.float32), np.float32(0), whole)
                # Here SSD computes the areas as if the box were not in pixels.
                return Boxes(clipped, Boxes.of(clipped).areas, in_pixels=True)
        elif self.resize is not None and mode == "FIT_LARGE_SIZE_AND_PAD":
            corners = _without_padding(corners, float(width / height), self.resize)
        clipped = np.clip(corners, np.float32(0), np.float32(1)) * whole
        return Boxes.of(clipped, in_pixels=True)


def _size(words: list[bytes]) -> tuple[int, int] | None:
    if len(words) != 3 or not all(word.isdigit() and len(word) < 10 for word in words[1:]):
        return None
    height, width = int(words[1]), int(words[2])
    return (height, width) if height > 0 and width > 0 else None


def _without_padding(corners: Array, aspect: float, resize: Message) -> Array:
    """Boxes relative to a padded image, converted to be relative to the image without padding."""
    height, width = float(resize.height), float(resize.width)
    if aspect > width / height:
        pad = np.array([0, (height - width / aspect) / 2 / height], np.float32)
    else:
        pad = np.array([(width - height * aspect) / 2 / width, 0], np.float32)
    low, high = np.tile(pad, 2), np.tile(1 - pad, 2)
    outside = (corners[:, :2] >= high[:2]) | (corners[:, 2:] <= low[:2])
    # SSD does not change boxes that lie in the padding.
    return np.where(outside.any(1, keepdims=True), corners, (corners - low) / (high - low))
