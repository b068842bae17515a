"""transform_param: crop, mean, mirror and scale, on a batch at once."""

from __future__ import annotations

import numpy as np

from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import AnyArray, Array, Shape, show
from ristretto_cli.sources.images import COLOR, GRAY, NATIVE
from ristretto_cli.sources.settings import existing
from ristretto_cli.wire.messages import TRAIN, Message
from ristretto_cli.wire.weights import read_blob

# SSD's additions.
_OF_ANNOTATED_DATA = (
    "resize_param",
    "noise_param",
    "emit_constraint",
    "expand_param",
    "distort_param",
    "crop_h",
    "crop_w",
)


class Transform:
    """(pixel - mean) * scale of a crop, perhaps mirrored, as TransformationParameter tells.

    phase: TRAIN crops anywhere, TEST in the centre; mirroring happens in both, to every other image or so.
    rng decides on crops and mirrors. LayerError for settings that contradict each other and for a mean file
    that cannot be read.
    """

    def __init__(self, param: Message, phase: int, rng: np.random.Generator) -> None:
        if param.HasField("mean_file") and len(param.mean_value):
            raise LayerError("transform_param has both mean_file and mean_value", remedy="Keep one.")
        if param.force_color and param.force_gray:
            raise LayerError("transform_param has both force_color and force_gray", remedy="Keep one.")
        unread = [field for field in _OF_ANNOTATED_DATA if param.HasField(field)]
        if unread:
            raise LayerError(
                f"transform_param has {', '.join(unread)}, which only AnnotatedData layers read",
                remedy="Remove it; store the images as the net needs them.",
            )
        self._crop = int(param.crop_size)
        self._scale = np.float32(param.scale)
        self._mirror = bool(param.mirror)
        self._random_crop = phase == TRAIN
        self._rng = rng
        self._values = np.array(param.mean_value, np.float32)
        self._mean_file = param.mean_file if param.HasField("mean_file") else None
        self._mean = None if self._mean_file is None else read_mean(self._mean_file)
        self.decode_flag = COLOR if param.force_color else GRAY if param.force_gray else NATIVE

    def shape(self, image: Shape) -> Shape:
        """The shape (C, H', W') behind the transform of an image (C, H, W); LayerError if they don't fit."""
        channels, height, width = image
        if self._crop > min(height, width):
            raise LayerError(f"crop_size {self._crop} is larger than the image, {height}x{width}")
        if self._mean is not None and self._mean.shape != image:
            mean = show(self._mean.shape)
            raise LayerError(f"mean_file {self._mean_file} is {mean}, the image {show(image)}")
        if len(self._values) not in (0, 1, channels):
            raise LayerError(
                f"transform_param has {len(self._values)} mean_values for {channels} channels",
                remedy="Give one, or one per channel.",
            )
        return (channels, self._crop, self._crop) if self._crop else image

    def check(self, image: Shape, where: str) -> None:
        """Refuse an image, (C, H, W), that does not fit the settings, telling where it is."""
        try:
            self.shape(image)
        except LayerError as error:
            raise RistrettoError(str(error), where=where) from None

    def __call__(self, images: AnyArray) -> Array:
        """images (N, C, H, W) of any number type, which `shape` has accepted, to float32 (N, C, H', W')."""
        if self._crop and self._random_crop:
            out = self._cropped_anywhere(images)
        else:
            top, left, height, width = self._centre(images.shape)
            window = np.s_[..., top : top + height, left : left + width]
            out = images[window].astype(np.float32, order="C")
            if self._mean is not None:
                out -= self._mean[window]
        if len(self._values):
            out -= self._values.reshape(-1, 1, 1)
        if self._scale != 1:
            out *= self._scale
        if self._mirror:
            chosen = self._rng.integers(2, size=len(out)) == 1
            out[chosen] = out[chosen, ..., ::-1]
        return out

    def _centre(self, shape: Shape) -> tuple[int, int, int, int]:
        height, width = shape[-2:]
        if not self._crop:
            return 0, 0, height, width
        return (height - self._crop) // 2, (width - self._crop) // 2, self._crop, self._crop

    def _cropped_anywhere(self, images: AnyArray) -> Array:
        n, channels, height, width = images.shape
        size = self._crop
        tops = self._rng.integers(height - size + 1, size=n)
        lefts = self._rng.integers(width - size + 1, size=n)
        out = np.empty((n, channels, size, size), np.float32)
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            window = np.s_[:, top : top + size, left : left + size]
            out[i] = images[i][window]
            if self._mean is not None:
                out[i] -= self._mean[window]
        return out


def read_mean(path: str) -> Array:
    """The mean image (C, H, W) of a .binaryproto; LayerError where it is none."""
    mean = np.array(read_blob(existing(path, "mean_file")))
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise LayerError(f"mean_file {path} is {show(mean.shape)}, not one image")
    return mean
