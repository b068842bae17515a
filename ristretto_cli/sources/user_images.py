"""Image files for the inputs of deploy nets, preprocessed as by Caffe's Transformer (python/caffe/io.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ristretto_cli.caffe_io.npz import read_npy
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import Array, Shape, show
from ristretto_cli.sources.decoding import Workers
from ristretto_cli.sources.images import COLOR, GRAY, Pixels, decode, ends_in_number, planes, read_image_file, resize
from ristretto_cli.sources.settings import existing, read_lines
from ristretto_cli.sources.source import Source
from ristretto_cli.sources.transform import read_mean

_SUFFIXES = frozenset(
    (".bmp", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
_FLAGS = {1: GRAY, 3: COLOR}
_BYTES = 255.0  # the Transformer's images have values from 0 to 1


@dataclass(frozen=True)
class ImageSettings:
    """Image files, and their preprocessing: resize, channel_swap, raw_scale, mean, input_scale, in this order.

    files: at least one. resize: height and width, by default those of the net's input, which is cut out of the centre.
    channel_swap: the new order of the planes red, green, blue; ignored for gray inputs unless it is given. raw_scale:
    the value of white. mean: to subtract, per channel (C,) or per pixel (C, H, W). input_scale: a final factor.
    """

    files: Sequence[str]
    resize: tuple[int, int] | None = None
    channel_swap: tuple[int, ...] | None = None
    raw_scale: float = _BYTES
    mean: Array | None = None
    input_scale: float = 1.0


class UserImages(Source):
    """Batches of images for an input of the shape (N, C, H, W); after the last image the first one follows.

    RistrettoError for settings that do not fit the shape, and for images that cannot be read.
    """

    def __init__(self, settings: ImageSettings, shape: Shape, blob: str) -> None:
        self.shapes = (shape,)
        batch, channels, height, width = shape
        self._batch, self._window = batch, (height, width)
        self._size = settings.resize or (height, width)
        self._settings = settings
        self._at = 0
        if channels not in _FLAGS:
            raise RistrettoError(f'input "{blob}" has {channels} channels, but images have 1 or 3', hint="Use --input.")
        self._flag = _FLAGS[channels]
        if self._size[0] < height or self._size[1] < width:
            what = f'--resize {_pair(self._size)} is smaller than input "{blob}", {height}x{width}'
            raise RistrettoError(what, hint="The input is cut out of the centre of the resized image.")
        self._order = self._order_of(channels)
        self._mean = self._mean_of(channels)
        self._workers = Workers()

    def next(self) -> tuple[Array, ...]:
        files = self._settings.files
        chosen = [files[(self._at + i) % len(files)] for i in range(self._batch)]
        self._at = (self._at + self._batch) % len(files)
        return (self._transformed(np.stack(self._workers.map(self._pixels, chosen))),)

    def close(self) -> None:
        self._workers.close()

    def _pixels(self, file: str) -> Pixels:
        """The centre of a resized image: (C, H, W), blue, green and red."""
        image = decode(read_image_file(file), self._flag, file)
        if image.shape[:2] != self._size:
            image = resize(image, *self._size)
        top, left = self._corner()
        return planes(image[top : top + self._window[0], left : left + self._window[1]])

    def _corner(self) -> tuple[int, int]:
        return (self._size[0] - self._window[0]) // 2, (self._size[1] - self._window[1]) // 2

    def _transformed(self, pixels: Pixels) -> Array:
        images = pixels[:, self._order].astype(np.float32)
        if self._settings.raw_scale != _BYTES:
            images *= np.float32(self._settings.raw_scale / _BYTES)
        if self._mean is not None:
            images -= self._mean
        if self._settings.input_scale != 1:
            images *= np.float32(self._settings.input_scale)
        return images

    def _order_of(self, channels: int) -> list[int]:
        """The planes of a decoded image in the order of the net's input."""
        swap = self._settings.channel_swap
        if swap is None:
            return list(range(channels))
        if sorted(swap) != list(range(channels)):
            raise RistrettoError(
                f"--channel_swap {','.join(map(str, swap))} is not an order of {channels} channels",
                hint="Omit it." if channels == 1 else "2,1,0 is blue, green, red.",
            )
        return [channels - 1 - i for i in swap]  # it counts from red, decoded images from blue

    def _mean_of(self, channels: int) -> Array | None:
        mean = self._settings.mean
        if mean is None:
            return None
        if mean.shape in ((1,), (channels,)):
            return mean.reshape(-1, 1, 1)
        if mean.shape == (channels, *self._size):
            top, left = self._corner()
            return mean[:, top : top + self._window[0], left : left + self._window[1]]
        if mean.shape == (channels, *self._window):
            return mean
        raise RistrettoError(
            f"--mean has the shape {show(mean.shape)}; expected {show((channels,))} (a number per channel), "
            f"{show((channels, *self._window))} or, before cropping, {show((channels, *self._size))}",
            hint="Use --resize with the mean's height and width, or a number per channel.",
        )


def image_files(path: str) -> list[str]:
    """The images of a folder and its subfolders, sorted; those that a list file names, one per line; or one image.

    Labels in a list are ignored. Names in a list are relative to the current folder or, if the first file is not
    there, to the list's. RistrettoError if there are none, or the first one of a list does not exist.
    """
    found = existing(path, "--images")
    if found.is_dir():
        inside = (each for each in found.rglob("*") if each.suffix.lower() in _SUFFIXES and each.is_file())
        files = sorted(str(each) for each in inside if not each.name.startswith("."))
        if not files:
            raise RistrettoError("the folder has no images", where=path, hint="Known: PNG, JPEG, BMP, TIFF, WebP, PNM.")
        return files
    if found.suffix.lower() in _SUFFIXES:
        return [path]
    lines = [line.strip() for line in read_lines(found, "--images") if line.strip()]
    if not lines:
        raise RistrettoError("the list names no images", where=path)
    folders = [Path(), found.parent]
    names = {folder: [_name(folder, line) for line in lines] for folder in folders}
    folder = next((each for each in folders if (each / names[each][0]).exists()), None)
    if folder is None:
        raise RistrettoError(
            f"the first image of the list, {names[folders[0]][0]}, does not exist",
            where=path,
            hint="Names are relative to the current folder, or else to that of the list.",
        )
    return [str(folder / name) for name in names[folder]]


def _name(folder: Path, line: str) -> str:
    """The file that a line of a list names, without a label."""
    if ends_in_number(line) and not (folder / line).exists():
        return line.rsplit(maxsplit=1)[0]
    return line


def mean_of(value: str) -> Array:
    """The mean given by numbers, by a .npy file, or by a .binaryproto file: (C,) or (C, H, W)."""
    try:
        return np.array([float(part) for part in value.split(",")], np.float32)
    except ValueError:
        pass
    if not value.endswith(".npy"):
        return read_mean(str(existing(value, "--mean")))
    mean = read_npy(value)
    mean = mean[0] if mean.ndim == 4 and len(mean) == 1 else mean
    if mean.ndim not in (1, 3):
        raise RistrettoError(f"the mean is {show(mean.shape)}, not an image or a number per channel", where=value)
    return mean


def _pair(size: tuple[int, int]) -> str:
    return f"{size[0]},{size[1]}"
