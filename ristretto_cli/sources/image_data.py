"""ImageData: image files from a list."""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import NamedTuple

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Array
from ristretto_cli.sources.decoding import Workers
from ristretto_cli.sources.images import COLOR, GRAY, MAX_SIDE, Pixels, decode, planes, read_image_file, resize
from ristretto_cli.sources.list_labels import BadLabel, ListLabels
from ristretto_cli.sources.settings import (
    batch_size_of,
    check_tops,
    checked_shape,
    existing,
    read_lines,
    warn_ignored,
)
from ristretto_cli.sources.source import Source, source
from ristretto_cli.sources.transform import Draw, Transform

log = logging.getLogger("ristretto")


class Entry(NamedTuple):
    """A line of the list: the file, root_folder and name joined, and the label."""

    file: str
    label: int


@source("ImageData")
class ImageData(Source):
    """Images (N, C, H, W) and labels (N,) of the files in a list, each line a name, a space and a label.

    Names may contain spaces, except in a list without any labels, where all labels are 0. With shuffle, each pass over
    the list is reshuffled. Sizes may differ as in Data.
    """

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 2, 2)
        param = message.image_data_param
        warn_ignored(param, "image_data_param")
        self._batch = batch_size_of(param, "image_data_param")
        self._size = _new_size(param)
        self._flag = COLOR if param.is_color else GRAY
        self._rng = np.random.default_rng(seed)
        self._transform = Transform(message.transform_param, phase, self._rng)
        self._entries = _read_list(param.source, param.root_folder)
        self._shuffle = bool(param.shuffle)
        self._order = self._turn()
        self._at = int(self._rng.integers(param.rand_skip)) if param.rand_skip else 0
        if self._at >= len(self._entries):
            raise LayerError(f"rand_skip skips {self._at} of {len(self._entries)} images", hint="Reduce rand_skip.")
        self._workers = Workers()
        first = self._entries[self._order[self._at]]
        image = self._image((first, Draw(self._transform.draws(1)[0].interpolation)))
        images = (self._batch, *self._transform.shape(image.shape))
        self.shapes = (checked_shape(images, "the batch"), (self._batch,))

    def next(self) -> tuple[Array, ...]:
        entries = [self._next_entry() for _ in range(self._batch)]
        pairs = list(zip(entries, self._transform.draws(self._batch), strict=True))
        images = self._workers.map(self._image, pairs)
        where = [partial(str, entry.file) for entry in entries]
        batch = self._transform.batch(images, where, resize="Set new_height and new_width")
        return self._transform(batch), np.array([entry.label for entry in entries], np.float32)

    def close(self) -> None:
        self._workers.close()

    def _next_entry(self) -> Entry:
        entry = self._entries[self._order[self._at]]
        self._at += 1
        if self._at == len(self._entries):
            self._at = 0
            self._order = self._turn()
        return entry

    def _turn(self) -> list[int]:
        """The order of one pass over the list."""
        count = len(self._entries)
        return self._rng.permutation(count).tolist() if self._shuffle else list(range(count))

    def _image(self, pair: tuple[Entry, Draw]) -> Pixels:
        """One file's image, (C, H, W), resized with an interpolation if resize_param is set."""
        entry, draw = pair
        image = decode(read_image_file(entry.file), self._flag, entry.file)
        image = resize(image, *self._size) if self._size else image
        return planes(self._transform.resized(image, draw, entry.file))


def _new_size(param: Message) -> tuple[int, int] | None:
    height, width = int(param.new_height), int(param.new_width)
    if (height == 0) != (width == 0):
        raise LayerError("image_data_param sets only one of new_height and new_width", hint="Set both.")
    if max(height, width) > MAX_SIDE:
        raise LayerError(f"image_data_param: an image of {height}x{width} is too large")
    return (height, width) if height else None


def _read_list(source: str, root: str) -> list[Entry]:
    path = existing(source, "image_data_param.source")
    entries = []
    lines = [
        (number, line.rstrip()) for number, line in enumerate(read_lines(path, "image_data_param.source"), start=1)
    ]
    lines = [(number, line) for number, line in lines if line]
    if lines and not any(" " in line for _, line in lines):
        log.warning("%s has no labels: the label of each image is 0.", path)
        # In Caffe, too, a line without a space is a name, but its label is the number that it begins with.
        for _, line in lines:
            if digits := re.match(r"[+-]?0*[1-9]\d*", line):
                words = "Caffe takes the number at the beginning of a name for its label, such as %d for %s."
                log.warning(words, int(digits[0][:12]), line)
                break
        return [Entry(root + line, 0) for _, line in lines]
    labels = ListLabels(str(path))
    for number, line in lines:
        name, _, label = line.rpartition(" ")
        try:
            value = labels.read(number, label)
            if not name:
                raise BadLabel("no label after the last space")
        except BadLabel as fault:
            raise LayerError(f"{path}:{number}: {fault}", hint="Expected: file label.") from None
        entries.append(Entry(root + name, value))
    labels.warn()
    if not entries:
        raise LayerError(f"image_data_param.source {path} lists no images")
    return entries
