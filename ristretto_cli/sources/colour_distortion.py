"""distort_param: SSD's random changes of an image's colours, for training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.libraries import cv2
from ristretto_cli.sources.images import Pixels

_COLOURS = 3
_SMALLEST_CONTRAST = 1e-3  # SSD changes no contrast by less than this
_Change = Callable[[Pixels, np.random.Generator], Pixels]


class ColourDistortion:
    """Brightness, contrast, saturation, hue and the order of the channels, each changed with its probability.

    Contrast is changed either before saturation and hue or after them. LayerError for bounds that contradict each
    other.
    """

    def __init__(self, param: Message) -> None:
        self._param = param
        for name in ("brightness", "hue"):
            if self._probability(name) > 0 and not getattr(param, f"{name}_delta") >= 0:
                raise LayerError(f"distort_param.{name}_delta must be 0 or more")
        for name in ("contrast", "saturation"):
            low, high = getattr(param, f"{name}_lower"), getattr(param, f"{name}_upper")
            if self._probability(name) > 0 and not 0 <= low <= high < np.inf:
                raise LayerError(f"distort_param has {name}_lower {low:g} and {name}_upper {high:g}")
        coloured = ("saturation", "hue", "random_order")
        self._needs_colours = [name for name in coloured if self._probability(name) > 0]

    def __call__(self, image: Pixels, rng: np.random.Generator, where: str) -> Pixels:
        """The image (H, W, C) with random changes; RistrettoError, with the location, if it lacks colours."""
        if self._needs_colours and image.shape[2] != _COLOURS:
            what = f"distort_param's {self._needs_colours[0]} needs 3 channels, but the image has {image.shape[2]}"
            raise RistrettoError(what, where=where, hint="Set force_color: true, or remove it.")
        late_contrast = rng.random() <= 0.5
        changes: list[tuple[str, _Change]] = [("saturation", self._saturated), ("hue", self._coloured)]
        changes.insert(2 if late_contrast else 0, ("contrast", self._contrasted))
        for name, change in [("brightness", self._brightened), *changes, ("random_order", _reordered)]:
            if rng.random() < self._probability(name):
                image = change(image, rng)
        return image

    def _probability(self, name: str) -> float:
        return float(getattr(self._param, f"{name}_prob"))

    def _brightened(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        delta = self._param.brightness_delta
        return scaled(image, 1, rng.uniform(-delta, delta))

    def _contrasted(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        factor = rng.uniform(self._param.contrast_lower, self._param.contrast_upper)
        return scaled(image, factor, 0) if abs(factor - 1) > _SMALLEST_CONTRAST else image

    def _saturated(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        return _in_hsv(image, 1, rng.uniform(self._param.saturation_lower, self._param.saturation_upper), 0)

    def _coloured(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        delta = self._param.hue_delta
        return _in_hsv(image, 0, 1, rng.uniform(-delta, delta))


def scaled(image: Pixels, factor: float, shift: float) -> Pixels:
    """image * factor + shift, rounded and saturated."""
    table = np.rint(np.arange(256) * factor + shift).clip(0, 255).astype(np.uint8)
    return np.asarray(table[image])


def _in_hsv(image: Pixels, channel: int, factor: float, shift: float) -> Pixels:
    """The image with one channel of hue, saturation and value changed. OpenCV's hue is in steps of two degrees."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), np.uint8)
    hsv[..., channel] = scaled(hsv[..., channel], factor, shift)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def _reordered(image: Pixels, rng: np.random.Generator) -> Pixels:
    return np.ascontiguousarray(image[..., rng.permutation(_COLOURS)])
