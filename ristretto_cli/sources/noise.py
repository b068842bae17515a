"""noise_param: SSD's effects on a resized image, for training."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from typing import Any

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.libraries import cv2
from ristretto_cli.sources.colour_distortion import scaled
from ristretto_cli.sources.images import COLOR, GRAY, Pixels, decode

_CLIP_LIMIT = 4.0  # of the adaptive equalization
_LEVELS = 64  # what posterize rounds to


class Noise:
    """The effects of a NoiseParameter, of which only saltpepper is random. LayerError for those that are not supported.

    `prob` has no effect, in SSD as here.
    """

    def __init__(self, param: Message) -> None:
        self._param = param
        if param.convert_to_lab:
            raise LayerError("noise_param.convert_to_lab is not supported", hint="Remove it.")
        spots = param.saltpepper_param
        if param.saltpepper and not (0 <= spots.fraction <= 1 and len(spots.value)):
            raise LayerError("saltpepper_param needs a fraction from 0 to 1 and a value")
        if not param.jpeg <= 100:
            raise LayerError(f"noise_param.jpeg is {param.jpeg:g}", hint="It is a quality, up to 100.")
        self._needs_colours = [name for name in ("decolorize", "convert_to_hsv") if getattr(param, name)]

    @classmethod
    def is_in(cls, param: Message) -> bool:
        """Whether a NoiseParameter has any effect."""
        switches = any(value for _, value in param.ListFields() if isinstance(value, bool))
        return bool(switches or param.jpeg > 0)

    def __call__(self, image: Pixels, rng: np.random.Generator, where: str) -> Pixels:
        """The image (H, W, C) with all effects; RistrettoError, with the location, if its channels do not fit."""
        param, channels = self._param, image.shape[2]
        if channels not in (1, 3) or (channels == 1 and self._needs_colours):
            name = self._needs_colours[0] if self._needs_colours else "effects"
            what = f"noise_param's {name} cannot be applied to an image of {channels} channels"
            raise RistrettoError(what, where=where, hint="Set force_color: true.")
        try:
            for out in self._effects(np.ascontiguousarray(image), where):
                image = out
        except cv2.error:
            raise RistrettoError("noise_param cannot be applied to the image", where=where) from None
        image = np.asarray(image, np.uint8).reshape(*image.shape[:2], channels)
        if param.saltpepper:
            image = self._spotted(image, rng, where)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), np.uint8) if param.convert_to_hsv else image

    def _effects(self, source: Pixels, where: str) -> Iterator[Any]:
        """The image after each effect, in SSD's order."""
        param, gray = self._param, source.shape[2] == 1
        image: Any = source
        yield image
        if param.decolorize:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
            yield image
        if param.gauss_blur:
            image = cv2.GaussianBlur(image, (7, 7), 1.5)
            yield image
        for wanted, local in ((param.hist_eq, False), (param.clahe, True)):
            if wanted:
                image = _equalized(image, local=local)
                yield image
        if param.jpeg > 0:
            _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(param.jpeg)])
            image = decode(data.tobytes(), GRAY if gray else COLOR, where)
            yield image
        if param.erode:
            image = cv2.erode(image, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
            yield image
        if param.posterize:
            image = image // _LEVELS * _LEVELS + _LEVELS // 2
            yield image
        if param.inverse:
            yield scaled(image, -1, 255)

    def _spotted(self, image: Pixels, rng: np.random.Generator, where: str) -> Pixels:
        spots, (height, width, channels) = self._param.saltpepper_param, image.shape
        if len(spots.value) not in (1, channels):
            what = f"saltpepper_param has {len(spots.value)} values for {channels} channels"
            raise RistrettoError(what, where=where, hint="Set one, or one per channel.")
        count = floor(spots.fraction * width * height)
        out = image.copy()
        values = np.clip(np.nan_to_num(np.array(spots.value)), 0, 255).astype(np.uint8)
        out[rng.integers(height, size=count), rng.integers(width, size=count)] = values
        return np.asarray(out)


def _equalized(image: Any, *, local: bool) -> Pixels:
    """The image with an equalized histogram of its luma."""
    equalize: Any = cv2.createCLAHE(clipLimit=_CLIP_LIMIT).apply if local else cv2.equalizeHist
    if image.ndim == 2 or image.shape[2] == 1:
        return np.asarray(equalize(image), np.uint8)
    planes: Any = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    planes[..., 0] = equalize(np.ascontiguousarray(planes[..., 0]))
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2BGR), np.uint8)
