"""Encoded images to arrays, by OpenCV: planes in the order blue, green, red."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from ristretto_cli.errors import RistrettoError

Pixels: TypeAlias = npt.NDArray[np.uint8]

NATIVE, GRAY, COLOR = cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR


def decode(data: bytes, flag: int, where: str) -> Pixels:
    """An encoded image (PNG, JPEG, ...) as (H, W, C) bytes.

    flag: GRAY gives one channel, COLOR three, NATIVE as many as the file has. RistrettoError, telling where,
    if it cannot be decoded or is deeper than 8 bits.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise RistrettoError("the image cannot be decoded", where=where)
    if image.dtype != np.uint8:
        raise RistrettoError(f"the image has {image.dtype} pixels, not 8 bits", where=where)
    return np.asarray(image, np.uint8).reshape(*image.shape[:2], -1)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """image (H, W, C) stretched to (height, width, C), linearly interpolated."""
    stretched = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(stretched, np.uint8).reshape(height, width, -1)


def planes(image: Pixels) -> Pixels:
    """(H, W, C) as (C, H, W)."""
    return np.moveaxis(image, 2, 0)
