"""Decoding of images to arrays, with OpenCV: planes in the order blue, green, red."""

from __future__ import annotations

import os
import re
import stat
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ristretto_cli.errors import RistrettoError
from ristretto_cli.libraries import cv2

Pixels: TypeAlias = npt.NDArray[np.uint8]

_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
ONE_LABEL = "A line has one label, its last number; for several labels use HDF5Data, or Data with float_data."
MAX_SIDE = 32767  # OpenCV's limit of sizes when resizing
MAX_PIXELS = 2**26  # of an image that is made here, as for decoded ones
NATIVE, GRAY, COLOR = -1, 0, 1  # OpenCV's IMREAD_UNCHANGED, IMREAD_GRAYSCALE and IMREAD_COLOR


def read_image_file(file: str) -> bytes:
    """The bytes of an image file; RistrettoError if it cannot be read, or may have no end (a pipe, a device)."""
    try:
        kind = os.stat(file).st_mode  # noqa: PTH116 - a name after any prefix, as root_folder in Caffe
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise ValueError("it is not a regular file")
        with open(file, "rb") as stream:  # noqa: PTH123
            return stream.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        hint = ONE_LABEL if ends_in_number(file) else ""
        raise RistrettoError(f"the image cannot be read: {reason}", where=file, hint=hint) from None


def ends_in_number(name: str) -> bool:
    """Whether the last of several words is a number: such a name may come from a line with several labels."""
    words = name.rsplit(maxsplit=1)
    return len(words) == 2 and _NUMBER.fullmatch(words[1]) is not None


def decode(data: bytes, flag: int, where: str) -> Pixels:
    """An encoded image (PNG, JPEG, ...) as (H, W, C) bytes.

    flag: GRAY gives one channel, COLOR three, NATIVE as many as the file has. RistrettoError, with the location,
    if it cannot be decoded, is deeper than 8 bits, or has more pixels than OPENCV_IO_MAX_IMAGE_PIXELS (2**26).
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data and not _misleads(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise RistrettoError("the image cannot be decoded", where=where)
    if image.dtype != np.uint8:
        raise RistrettoError(f"the image has {image.dtype} pixels, not 8 bits", where=where)
    return np.asarray(image, np.uint8).reshape(*image.shape[:2], -1)


def _misleads(data: bytes) -> bool:
    """Whether a PNG has a chunk longer than the file: OpenCV allocates it before checking."""
    if not data.startswith(_PNG):
        return False
    at, name = len(_PNG), b""
    while at + 8 <= len(data) and name != b"IEND":
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + size  # length, name, content, checksum
    return at > len(data)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """image (H, W, C) stretched to (height, width, C), linearly interpolated."""
    stretched = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(stretched, np.uint8).reshape(height, width, -1)


def planes(image: Pixels) -> Pixels:
    """(H, W, C) as (C, H, W)."""
    return np.moveaxis(image, 2, 0)
