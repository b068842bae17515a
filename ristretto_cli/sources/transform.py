"""transform_param: crop, mean, mirror and scale of a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.messages import TRAIN, Message
from ristretto_cli.caffe_io.weights import read_blob
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import AnyArray, Array, Shape, show
from ristretto_cli.sources.annotations import AnnotatedBoxes
from ristretto_cli.sources.augmentation import Augmentation
from ristretto_cli.sources.images import COLOR, GRAY, NATIVE, Pixels
from ristretto_cli.sources.resize_param import Resize
from ristretto_cli.sources.settings import existing

ImageBatch: TypeAlias = AnyArray | Sequence[AnyArray]  # (N, C, H, W), or (C, H, W) for each image

_OF_BOXES = ("emit_constraint", "expand_param", "distort_param")  # read only by SSD's AnnotatedData


@dataclass(frozen=True)
class Views:
    """The crops of N images. extents: the height and width of each; tops, lefts: (N,), in pixels; mirrored: (N,)."""

    extents: Sequence[tuple[int, int]]
    tops: npt.NDArray[np.int64]
    lefts: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]


class Draw(NamedTuple):
    """The random choices for an image. seed: of its augmentation; None for no random changes."""

    interpolation: int
    seed: int | None = None

    def rng(self, step: int) -> np.random.Generator | None:
        """The random numbers of a step of the augmentation."""
        return None if self.seed is None else np.random.default_rng([self.seed, step])


class Transform:
    """(pixel - mean) * scale of a crop, possibly mirrored, according to a TransformationParameter.

    phase: TRAIN crops at random positions, TEST in the centre; both mirror images at random.
    rng: for crops and mirrors. annotated: the AnnotatedDataParameter of a layer that has boxes; other
    layers do not read all of SSD's settings. LayerError for settings that contradict each other or that would
    change images at random in the TEST phase, and for a mean file that cannot be read.

    Images must be augmented and resized already: decoded ones go through `augmented` and `resized`, one by one.
    """

    def __init__(
        self, param: Message, phase: int, rng: np.random.Generator, *, annotated: Message | None = None
    ) -> None:
        if param.HasField("mean_file") and len(param.mean_value):
            raise LayerError("transform_param has both mean_file and mean_value", hint="Use only one of them.")
        if param.force_color and param.force_gray:
            raise LayerError("transform_param has both force_color and force_gray", hint="Use only one of them.")
        unread = [field for field in _OF_BOXES if annotated is None and param.HasField(field)]
        if unread:
            raise LayerError(
                f"transform_param has {', '.join(unread)}, which only AnnotatedData layers read", hint="Remove it."
            )
        self._augmentation = Augmentation(param, annotated, phase)
        self.resize = Resize.of(param.resize_param) if param.HasField("resize_param") else None
        size = int(param.crop_size)
        self._crop_text = f"crop_size {size}" if size else f"crop_h {param.crop_h}, crop_w {param.crop_w}"
        self._crop = (size, size) if size else (int(param.crop_h), int(param.crop_w))
        self.crops = min(self._crop) > 0  # all images to one size
        self._scale = np.float32(param.scale)
        self._mirror = bool(param.mirror)
        self._random_crop = phase == TRAIN
        self._rng = rng
        self._values = np.array(param.mean_value, np.float32)
        self._mean_file = param.mean_file if param.HasField("mean_file") else None
        self._mean = None if self._mean_file is None else read_mean(self._mean_file)
        self.augments = self._augmentation.is_active
        self.changes_size = self._augmentation.changes_size
        self.windows = self._augmentation.fixed_windows
        self.decode_flag = COLOR if param.force_color else GRAY if param.force_gray else NATIVE

    def draws(self, count: int) -> list[Draw]:
        """The random choices for `count` images: for `augmented` and `resized`."""
        interpolations = [0] * count if self.resize is None else self.resize.drawn(count, self._rng)
        # Each image has its own numbers, whichever thread decodes it.
        seeds = self._rng.integers(2**63, size=count).tolist() if self.augments else [None] * count
        return [Draw(*pair) for pair in zip(interpolations, seeds, strict=True)]

    def augmented(
        self, image: Pixels, boxes: AnnotatedBoxes | None, draw: Draw, where: str, *, encoded: bool
    ) -> tuple[Pixels, tuple[Array, ...]]:
        """A record's image (H, W, C), augmented before it is resized, and the windows of it: see Augmentation."""
        return self._augmentation(image, boxes, draw.rng(0), where, self.decode_flag if encoded else None)

    def resized(self, image: Pixels, draw: Draw, where: str) -> Pixels:
        """An image (H, W, C) resized by resize_param, and with the noise of noise_param."""
        image = image if self.resize is None else self.resize(image, draw.interpolation, where)
        noise, rng = self._augmentation.noise, draw.rng(1)
        return image if noise is None or rng is None else noise(image, rng, where)

    def shape(self, image: Shape) -> Shape:
        """The shape (C, H', W') of a transformed image (C, H, W); LayerError if they do not fit."""
        channels, height, width = image
        if self._crop[0] > height or self._crop[1] > width:
            raise LayerError(f"{self._crop_text} is larger than the image, {height}x{width}")
        if self._mean is not None and self._mean.shape != image:
            mean = show(self._mean.shape)
            raise LayerError(f"mean_file {self._mean_file} is {mean}, but the image is {show(image)}")
        if len(self._values) not in (0, 1, channels):
            raise LayerError(
                f"transform_param has {len(self._values)} mean_values for {channels} channels",
                hint="Set one, or one per channel.",
            )
        return (channels, *self._shown(height, width))

    def batch(self, images: Sequence[AnyArray], where: Sequence[Callable[[], str]], *, resize: str) -> ImageBatch:
        """The images (C, H, W) as a batch for this transform: one array if all have one size, otherwise as they are.

        where: for each image, its location for messages. resize: how to resize images, for messages. RistrettoError for
        an image that does not fit the settings, and for one whose transformed shape is not that of the first.
        """
        expected: Shape = ()
        for image, location in zip(images, where, strict=True):
            try:
                shape = self.shape(image.shape)
            except LayerError as error:
                raise RistrettoError(str(error), where=location()) from None
            expected = expected or shape
            if shape != expected:
                hint = "" if self.crops else f"{resize}, or set crop_size."
                if image.shape[0] != images[0].shape[0]:
                    hint = (
                        "Set force_color: true (or force_gray: true) in transform_param if images are encoded; "
                        "otherwise convert all images to gray or all to color."
                    )
                raise RistrettoError(
                    f"the image is {show(image.shape)}, but the first one is {show(images[0].shape)}",
                    where=location(),
                    hint=hint,
                )
        same = all(image.shape == images[0].shape for image in images)
        return np.stack(images) if same else images

    def views(self, images: ImageBatch) -> Views:
        """The crop of each image of a batch, from `batch`."""
        extents = [(image.shape[1], image.shape[2]) for image in images]
        n = len(extents)
        margins = [tuple(w - p for w, p in zip(extent, self._shown(*extent), strict=True)) for extent in extents]
        rows, columns = (np.array(margin, np.int64) for margin in zip(*margins, strict=True))
        tops = lefts = np.zeros(n, np.int64)
        # With only one of crop_h and crop_w, SSD keeps the upper left corner.
        if min(self._crop) and self._random_crop:
            tops, lefts = (self._drawn(margin) for margin in (rows, columns))
        elif min(self._crop):
            tops, lefts = rows // 2, columns // 2
        mirrored = self._rng.integers(2, size=n) == 1 if self._mirror else np.zeros(n, np.bool_)
        return Views(extents, tops, lefts, mirrored)

    def window(self, views: Views, i: int) -> Array:
        """The visible part of image i of a batch: xmin, ymin, xmax, ymax, relative to the image."""
        height, width = views.extents[i]
        rows, columns = self._shown(height, width)
        left, top = int(views.lefts[i]), int(views.tops[i])
        ends = np.array([left, top, left + columns, top + rows], np.float32)
        return np.divide(ends, np.array([width, height, width, height], np.float32), dtype=np.float32)

    def __call__(self, images: ImageBatch, views: Views | None = None) -> Array:
        """A batch of any number type, from `batch`, to float32 (N, C, H', W').

        views: the crops, if the caller has chosen them.
        """
        views = self.views(images) if views is None else views
        out = self._cropped(images, views)
        if len(self._values):
            out -= self._values.reshape(-1, 1, 1)
        if self._scale != 1:
            out *= self._scale
        if self._mirror:
            out[views.mirrored] = out[views.mirrored, ..., ::-1]
        return out

    def _drawn(self, margins: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """A random place in each margin."""
        if len(set(margins.tolist())) == 1:
            return self._rng.integers(margins[0] + 1, size=len(margins))
        return self._rng.integers(margins + 1)

    def _shown(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of the visible part of an image."""
        return self._crop[0] or height, self._crop[1] or width

    def _cropped(self, images: ImageBatch, views: Views) -> Array:
        """The crops minus the mean image."""
        height, width = self._shown(*views.extents[0])
        corners = list(zip(views.tops.tolist(), views.lefts.tolist(), strict=True))
        out = np.empty((len(images), len(images[0]), height, width), np.float32)
        # If all images have one size and all crops are at the same place, all at once.
        at_once = isinstance(images, np.ndarray) and len({*corners}) == 1
        parts = [(out, images, corners[0])] if at_once else list(zip(out, images, corners, strict=True))
        for part, source, (top, left) in parts:
            rows, columns = slice(top, top + height), slice(left, left + width)
            part[...] = np.asarray(source)[..., rows, columns]
            if self._mean is not None:
                part -= self._mean[:, rows, columns]
        return out


def read_mean(path: str) -> Array:
    """The mean image (C, H, W) of a .binaryproto; LayerError if it is invalid."""
    mean = np.array(read_blob(existing(path, "mean_file")))
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise LayerError(f"mean_file {path} is {show(mean.shape)}, not a single image")
    return mean
