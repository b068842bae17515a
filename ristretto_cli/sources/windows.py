"""Window lists, and the placement of a window in a square crop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import floor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ristretto_cli.errors import LayerError
from ristretto_cli.sources.settings import existing, read_lines, words_of

_HEAD = ("number", "file", "channels", "height", "width", "count")  # of an image, after a #
_COLUMNS = ("label", "overlap", "x1", "y1", "x2", "y2")  # of a window, in the file
_Word = tuple[int, str]  # its line, and its kind


class Box(NamedTuple):
    """The corners of a window, inclusive."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class WindowList:
    """The contents of a list: the image files, and of each window the image (its index in `images`), the
    label, the overlap with an object, the corners as in Box, and the line."""

    images: tuple[str, ...]
    image: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    overlap: npt.NDArray[np.float32]
    corners: npt.NDArray[np.int32]
    line: npt.NDArray[np.int32]


class Placement(NamedTuple):
    """Rows and columns of an image, as half-open ranges, to be stretched to height and width, possibly
    mirrored, and placed in the crop at (top, left)."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    height: int
    width: int
    top: int
    left: int


def read_window_list(source: str, what: str) -> WindowList:
    """A list as R-CNN writes it: `# number file channels height width count`, then `count` times
    `label overlap x1 y1 x2 y2`, all separated by white space. LayerError, with the line, if it is invalid.

    what: the setting's name, for messages. The images' extents are ignored, as in Caffe.
    """
    path = existing(source, what)
    words = _words(path, what)
    images: list[str] = []
    tables: list[npt.NDArray[np.float64]] = []
    for head in iter(lambda: list(islice(words, 7)), []):
        line, sign = head[0]
        if sign != "#":
            raise LayerError(f'{path}:{line}: expected "#" before an image, found "{sign[:40]}"')
        if len(head) < 7:
            raise LayerError(f"{path} ends within the header of an image", hint=f"Its format: # {' '.join(_HEAD)}.")
        numbers = [word for word, name in zip(head[1:], _HEAD, strict=True) if name != "file"]
        number, *_, count = _table(path, numbers, [name for name in _HEAD if name != "file"])[0]
        images.append(head[2][1])
        taken = list(islice(words, 6 * max(0, int(count))))
        if len(taken) < 6 * count:
            raise LayerError(f"{path} ends within the windows of {head[2][1]}: {count:g} are declared")
        lines = np.array([line for line, _ in taken[::6]], np.float64)
        tables.append(np.column_stack((_table(path, taken, _COLUMNS), lines, np.full(len(lines), number))))
    if not images:
        raise LayerError(f"{what} {path} lists no images")
    table = np.concatenate(tables)
    image, line_of = table[:, 7].astype(np.int32), table[:, 6].astype(np.int32)
    foreign = (image < 0) | (image >= len(images))
    if foreign.any():
        first = int(np.argmax(foreign))
        raise LayerError(
            f"{path}:{line_of[first]}: a window of image {image[first]}, but the list has {len(images)} images",
            hint="Number the images consecutively from 0.",
        )
    return WindowList(
        tuple(images),
        image,
        table[:, 0].astype(np.int32),
        table[:, 1].astype(np.float32),
        table[:, 2:6].astype(np.int32),
        line_of,
    )


def place(box: Box, height: int, width: int, crop: int, pad: int, *, square: bool, mirror: bool) -> Placement | None:
    """The placement of a window of an image (height, width) in a crop; None if nothing of it is visible.

    pad: pixels of context on each side of the crop, less than half of crop. square: whether the
    window grows to a square to avoid distortion. Either lets the window extend beyond the image; the crop
    is 0 there. Computed in float32, as in Caffe; halves are rounded away from zero.
    """
    x1, y1, x2, y2 = box
    out_height = out_width = crop
    top = left = 0
    if pad > 0 or square:
        context = np.float32(crop) / np.float32(crop - 2 * pad)
        half_height, half_width = np.float32(y2 - y1 + 1) / np.float32(2), np.float32(x2 - x1 + 1) / np.float32(2)
        centre_y, centre_x = np.float32(y1) + half_height, np.float32(x1) + half_width
        if square:
            half_height = half_width = max(half_height, half_width)
        y1, y2 = _round(centre_y - half_height * context), _round(centre_y + half_height * context)
        x1, x2 = _round(centre_x - half_width * context), _round(centre_x + half_width * context)
        if y2 < y1 or x2 < x1:
            return None
        y1, y2, out_height, top = _clipped(y1, y2, height, crop, mirror=False)
        x1, x2, out_width, left = _clipped(x1, x2, width, crop, mirror=mirror)
    inside = 0 <= y1 <= y2 < height and 0 <= x1 <= x2 < width
    if not inside or out_height < 1 or out_width < 1:
        return None
    return Placement((y1, y2 + 1), (x1, x2 + 1), out_height, out_width, top, left)


def _clipped(first: int, last: int, extent: int, crop: int, *, mirror: bool) -> tuple[int, int, int, int]:
    """The inside part of a range on one axis, first and last, then its size and start in the crop."""
    before, after = max(0, -first), max(0, last - extent + 1)
    scale = np.float32(crop) / np.float32(last - first + 1)
    first, last = first + before, last - after
    start = _round(np.float32(after if mirror else before) * scale)
    # Rounding may have made the sum larger than the crop.
    return first, last, min(_round(np.float32(last - first + 1) * scale), crop - start), start


def _round(value: np.float32) -> int:
    """C's round: halves away from zero."""
    size = floor(abs(float(value)) + 0.5)
    return size if value >= 0 else -size


def _words(path: Path, what: str) -> Iterator[_Word]:
    for number, line in enumerate(read_lines(path, what), start=1):
        for word in words_of(line):
            yield number, word


def _table(path: Path, words: Sequence[_Word], columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Words as rows of numbers; LayerError for other words: only an overlap may have a fraction."""
    try:
        table = np.array([word for _, word in words], np.float64)
    except ValueError:
        table = np.array([_number(word) for _, word in words])
    at = np.arange(len(table)) % len(columns)
    whole = (table == np.rint(table)) & (abs(table) < 2**31)
    good = np.where(np.array(columns)[at] == "overlap", abs(table) < 1e30, whole)
    if not good.all():
        first = int(np.argmin(good))
        line, word = words[first]
        raise LayerError(f'{path}:{line}: expected {columns[at[first]]}, a number, found "{word[:40]}"')
    return table.reshape(-1, len(columns))


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")
