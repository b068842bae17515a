"""WindowData: windows of images for training R-CNN: some cover objects, some show background."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import Array, show
from ristretto_cli.sources.decoding import Workers
from ristretto_cli.sources.images import COLOR, MAX_SIDE, decode, planes, read_image_file, resize
from ristretto_cli.sources.settings import batch_size_of, check_tops, checked_shape
from ristretto_cli.sources.source import Source, source
from ristretto_cli.sources.transform import read_mean
from ristretto_cli.sources.windows import Box, place, read_window_list

log = logging.getLogger("ristretto")

_CHANNELS = 3  # images are always read in color


class _Choice(NamedTuple):
    """A chosen window: its number in the list, and whether it is mirrored."""

    window: int
    mirror: bool


@source("WindowData")
class WindowData(Source):
    """Windows (N, 3, crop_size, crop_size) and labels (N,), drawn at random in both phases.

    First come background windows (overlap below bg_threshold), labelled 0, then fg_fraction of the
    batch, rounded down, of object windows (overlap of fg_threshold or more). Pixels are
    (pixel - mean) * window_data_param.scale, and 0 where a window reaches beyond its image.
    """

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 2, 2)
        param = message.window_data_param
        _warn_ignored(message)
        self._batch = batch_size_of(param, "window_data_param")
        self._crop = _crop_size(message)
        shape = (self._batch, _CHANNELS, self._crop, self._crop)
        self.shapes = (checked_shape(shape, "the batch"), (self._batch,))
        self._pad = int(param.context_pad)
        self._square = param.crop_mode == "square"
        self._mirror = bool(message.transform_param.mirror)
        self._scale = np.float32(param.scale)
        self._mean = _mean(message.transform_param, self._crop)
        self._objects = _count_of_objects(self._batch, param.fg_fraction)
        self._root = param.root_folder
        self._path = param.source
        self._list = read_window_list(param.source, "window_data_param.source")
        covers = self._list.overlap >= np.float32(param.fg_threshold)
        shows_none = ~covers & (self._list.overlap < np.float32(param.bg_threshold))
        self._kinds = tuple(np.flatnonzero(chosen) for chosen in (shows_none, covers))
        self._check_windows()
        self._labels = np.where(covers, self._list.label, 0)
        self._rng = np.random.default_rng(seed)
        self._cache: dict[str, bytes] | None = {} if param.cache_images else None
        self._workers = Workers()

    def next(self) -> tuple[Array, ...]:
        choices = self._draw()
        windows = self._workers.map(self._window, choices)
        return np.stack(windows), self._labels[[choice.window for choice in choices]].astype(np.float32)

    def close(self) -> None:
        self._workers.close()

    def _check_windows(self) -> None:
        for windows, name, condition in zip(self._kinds, ("background", "objects"), ("below bg", "of fg"), strict=True):
            if not len(windows):
                raise LayerError(f"{self._path} has no windows of {name}: none has an overlap {condition}_threshold")
        objects = self._kinds[1]
        wrong = objects[self._list.label[objects] < 1]
        if len(wrong):
            label, line = self._list.label[wrong[0]], self._list.line[wrong[0]]
            what = f"{self._path}:{line}: a window of an object has label {label}"
            raise LayerError(what, hint="Labels of objects start at 1; 0 is the background.")

    def _draw(self) -> list[_Choice]:
        """The windows of a batch, background first."""
        choices = []
        for windows, count in zip(self._kinds, (self._batch - self._objects, self._objects), strict=True):
            chosen = windows[self._rng.integers(len(windows), size=count)]
            mirrored = self._rng.integers(2, size=count) == 1 if self._mirror else np.zeros(count, np.bool_)
            choices += [_Choice(*pair) for pair in zip(chosen.tolist(), mirrored.tolist(), strict=True)]
        return choices

    def _window(self, choice: _Choice) -> Array:
        """One window as it goes into the batch, (3, crop, crop)."""
        box = Box(*self._list.corners[choice.window].tolist())
        file = self._root + self._list.images[self._list.image[choice.window]]
        image = decode(self._bytes(file), COLOR, file)
        height, width = image.shape[:2]
        placed = place(box, height, width, self._crop, self._pad, square=self._square, mirror=choice.mirror)
        if placed is None:
            line = self._list.line[choice.window]
            what = f"window ({', '.join(map(str, box))}) is outside of {file}, which is {width} wide and {height} high"
            raise RistrettoError(what, where=f"{self._path}:{line}", hint="Coordinates are x1 y1 x2 y2, starting at 0.")
        seen = resize(image[slice(*placed.rows), slice(*placed.columns)], placed.height, placed.width)
        target = np.s_[:, placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
        out = np.zeros((_CHANNELS, self._crop, self._crop), np.float32)
        out[target] = planes(seen[:, ::-1] if choice.mirror else seen)
        if self._mean is not None:
            out[target] -= np.broadcast_to(self._mean, out.shape)[target]
        out[target] *= self._scale
        return out

    def _bytes(self, file: str) -> bytes:
        if self._cache is None:
            return read_image_file(file)
        if file not in self._cache:
            self._cache[file] = read_image_file(file)
        return self._cache[file]


def _warn_ignored(message: Message) -> None:
    param = message.window_data_param
    for field in ("mean_file", "crop_size", "mirror"):
        if param.HasField(field):
            log.warning("window_data_param.%s has no effect; set it in transform_param", field)
    if message.transform_param.HasField("scale"):
        log.warning("transform_param.scale has no effect; set it in window_data_param")
    if param.crop_mode not in ("warp", "square"):
        log.warning('unknown window_data_param.crop_mode "%s": windows are warped', param.crop_mode)


def _crop_size(message: Message) -> int:
    crop, pad = int(message.transform_param.crop_size), int(message.window_data_param.context_pad)
    if crop < 1:
        raise LayerError("WindowData layers need transform_param.crop_size")
    if crop > MAX_SIDE:
        raise LayerError(f"transform_param.crop_size {crop} is too large")
    if 2 * pad >= crop:
        raise LayerError(f"context_pad {pad} leaves nothing of crop_size {crop}")
    return crop


def _count_of_objects(batch: int, fraction: float) -> int:
    if not 0 <= fraction <= 1:
        raise LayerError(f"window_data_param.fg_fraction is {fraction:g}", hint="It must be from 0 to 1.")
    return int(np.float32(batch) * np.float32(fraction))


def _mean(param: Message, crop: int) -> Array | None:
    """The mean to subtract from a crop, (3, crop, crop) or (3 or 1, 1, 1)."""
    if param.HasField("mean_file") and len(param.mean_value):
        raise LayerError("transform_param has both mean_file and mean_value", hint="Use only one of them.")
    if len(param.mean_value):
        if len(param.mean_value) not in (1, _CHANNELS):
            raise LayerError(f"transform_param has {len(param.mean_value)} mean_values", hint="Set 1 or 3.")
        return np.array(param.mean_value, np.float32).reshape(-1, 1, 1)
    if not param.HasField("mean_file"):
        return None
    mean = read_mean(param.mean_file)
    # Caffe centres the crop by the mean's width, for rows too.
    start = (mean.shape[2] - crop) // 2
    if mean.shape[0] != _CHANNELS or start < 0 or mean.shape[1] < start + crop:
        raise LayerError(f"mean_file {param.mean_file} is {show(mean.shape)}, but the crop is 3x{crop}x{crop}")
    return mean[:, start : start + crop, start : start + crop]
