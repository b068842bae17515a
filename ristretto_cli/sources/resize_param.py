"""resize_param, SSD's extension of transform_param: images are resized before any other transform."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import floor

import numpy as np

from ristretto_cli.caffe_io.messages import Message, enum_name, enum_value
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.libraries import cv2
from ristretto_cli.sources.images import MAX_PIXELS, MAX_SIDE, Pixels

# OpenCV's numbers, INTER_LINEAR and so on; it is not imported until an image is resized.
_LINEAR = 1
_INTERPOLATIONS = {
    enum_value("ResizeParameter.Interp_mode", name): number
    for name, number in {"LINEAR": _LINEAR, "AREA": 3, "NEAREST": 0, "CUBIC": 2, "LANCZOS4": 4}.items()
}
_BORDERS = {"CONSTANT": 0, "MIRRORED": 4, "REPEAT_NEAREST": 1}  # BORDER_CONSTANT, BORDER_REFLECT_101, BORDER_REPLICATE


class Fit(Enum):
    """The resizing of images whose aspect ratio is not that of height and width."""

    STRETCH = "WARP"
    COVER = "FIT_SMALL_SIZE"  # one side fits, the other exceeds: images keep different sizes
    PAD = "FIT_LARGE_SIZE_AND_PAD"


@dataclass(frozen=True)
class Resize:
    """The settings of a ResizeParameter. `prob` has no effect, in SSD as here: every image is resized.

    height_scale, width_scale: the reference of boxes after a FIT_SMALL_SIZE, 0 for the image itself.
    interpolations: OpenCV's numbers; one is drawn for each image. pad_values: one per channel, or a single one.
    """

    fit: Fit
    height: int
    width: int
    height_scale: int
    width_scale: int
    interpolations: tuple[int, ...]
    border: int
    pad_values: tuple[float, ...]

    @classmethod
    def of(cls, param: Message) -> Resize:
        """The settings of a ResizeParameter; LayerError for an invalid size."""
        height, width = int(param.height), int(param.width)
        if min(height, width) < 1:
            raise LayerError(f"resize_param has height {height} and width {width}", hint="Set both to 1 or more.")
        if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
            raise LayerError(f"resize_param: an image of {height}x{width} is too large")
        return cls(
            Fit(enum_name(param, "resize_mode")),
            height,
            width,
            int(param.height_scale),
            int(param.width_scale),
            tuple(_INTERPOLATIONS[mode] for mode in param.interp_mode) or (_LINEAR,),
            _BORDERS[enum_name(param, "pad_mode")],
            tuple(param.pad_value),
        )

    def drawn(self, count: int, rng: np.random.Generator) -> list[int]:
        """An interpolation for each image; rng is used only if there is a choice."""
        if len(self.interpolations) == 1:
            return [self.interpolations[0]] * count
        return [self.interpolations[i] for i in rng.integers(len(self.interpolations), size=count)]

    def changes(self, height: int, width: int) -> bool:
        """Whether an image of this size changes."""
        return self._scaled(height, width) != (height, width) or self._padded(height, width) != (height, width)

    def __call__(self, image: Pixels, interpolation: int, where: str) -> Pixels:
        """image (H, W, C) in its new size; RistrettoError, with the location, if there is no valid one."""
        height, width, channels = image.shape
        if len(self.pad_values) not in (0, 1, channels):
            what = f"resize_param has {len(self.pad_values)} pad_values for {channels} channels"
            raise RistrettoError(what, where=where, hint="Set one, or one per channel.")
        scaled, padded = self._scaled(height, width), self._padded(height, width)
        if min(scaled) < 1 or max(scaled) > MAX_SIDE or scaled[0] * scaled[1] > MAX_PIXELS:
            what = f"resize_param would resize the {height}x{width} image to {scaled[0]}x{scaled[1]}"
            raise RistrettoError(what, where=where, hint="Its aspect ratio is too extreme.")
        try:
            # OpenCV drops the axis of a single channel.
            out = np.asarray(cv2.resize(image, scaled[::-1], interpolation=interpolation), np.uint8)
            if scaled != padded:
                out = self._pad(out, padded, channels)
        except cv2.error:
            raise RistrettoError(f"the image, {height}x{width}, cannot be resized", where=where) from None
        return out.reshape(*padded, channels)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to scale an image to. Its aspect ratio is a float32, as in SSD."""
        if self.fit is Fit.STRETCH:
            return self.height, self.width
        aspect = np.float32(width) / np.float32(height)
        wider = aspect > np.float32(self.width) / np.float32(self.height)
        narrower = aspect < np.float32(self.width) / np.float32(self.height)
        if wider if self.fit is Fit.PAD else narrower:
            return floor(np.float32(self.width) / aspect), self.width
        return self.height, floor(aspect * np.float32(self.height))

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of the result."""
        return self._scaled(height, width) if self.fit is Fit.COVER else (self.height, self.width)

    def _pad(self, image: Pixels, extent: tuple[int, int], channels: int) -> Pixels:
        """The image padded on all sides to this height and width."""
        rows, columns = extent[0] - image.shape[0], extent[1] - image.shape[1]
        top, left = rows // 2, columns // 2
        # SSD never sets the fourth channel.
        values = (self.pad_values or (0.0,)) * (1 if len(self.pad_values) == channels else 3)
        padded = cv2.copyMakeBorder(image, top, rows - top, left, columns - left, self.border, value=values[:3])
        return np.asarray(padded, np.uint8)
