"""SSD's random augmentation for training: colours, expansion, crops, noise.

In the TEST phase it would make scores random, so it is refused there. Settings that change nothing (probabilities of
0, a batch_sampler of the whole image) are allowed. In SSD, each step compresses the image as JPEG again, whether or
not it changes it, and so it does here; raw records are not compressed.
"""

from __future__ import annotations

import numpy as np

from ristretto_cli.caffe_io.messages import TEST, Message
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.libraries import cv2
from ristretto_cli.ops import Array
from ristretto_cli.sources.annotations import WHOLE, AnnotatedBoxes
from ristretto_cli.sources.colour_distortion import ColourDistortion
from ristretto_cli.sources.crop_sampler import CropSampler
from ristretto_cli.sources.images import MAX_PIXELS, Pixels, decode
from ristretto_cli.sources.noise import Noise

_MIN_EXPANSION = 1e-2


class Augmentation:
    """The augmentation of a TransformationParameter and an AnnotatedDataParameter (None: the layer has no boxes).

    is_active: whether it changes images. changes_size: whether it changes their sizes before they are resized.
    fixed_windows: those that all images have. noise: the effects on resized images, if there are any. LayerError for
    settings that are refused.
    """

    def __init__(self, param: Message, annotated: Message | None, phase: int) -> None:
        names = _active(param, annotated)
        distorts, expands, crops = (name in names for name in ("distort_param", "expand_param", "batch_sampler"))
        if names and phase == TEST:
            raise LayerError(
                f"{', '.join(names)} would change the images at random in the TEST phase",
                hint="Remove the augmentation from this layer; it is meant for the TRAIN phase.",
            )
        if expands and param.HasField("mean_file"):
            raise LayerError(
                "expand_param cannot be combined with mean_file", hint="Set mean_value, which fills the added border."
            )
        self.is_active = bool(names)
        self.changes_size = expands or crops
        self.noise = Noise(param.noise_param) if "noise_param" in names else None
        self._recodes_colours = param.HasField("distort_param")
        self._distortion = ColourDistortion(param.distort_param) if distorts else None
        self._expansion = param.expand_param if expands else None
        self._border = np.array(param.mean_value or [0.0])
        samplers = [] if annotated is None else [one for one in annotated.batch_sampler if _draws(one)]
        self._samplers = [CropSampler(sampler) for sampler in samplers] if crops else []
        self.fixed_windows = (WHOLE,) if samplers and not crops else ()
        self._constraint = param.emit_constraint if param.HasField("emit_constraint") else None

    def __call__(
        self, image: Pixels, boxes: AnnotatedBoxes | None, rng: np.random.Generator | None, where: str, flag: int | None
    ) -> tuple[Pixels, tuple[Array, ...]]:
        """A record's image (H, W, C) for the transform, and its windows: the visible parts, one after the other, each
        (xmin, ymin, xmax, ymax) relative to the image before.

        boxes: the record's, None if the layer has none. rng: None for an image without random changes. flag:
        decode's, for the compressions; None for raw records.
        """
        windows: list[Array] = []
        if self._distortion is not None and rng is not None:
            image = self._distortion(image, rng, where)
        if self._recodes_colours:
            image = _recoded(image, flag, where)
        if self._expansion is not None and rng is not None and rng.random() <= self._expansion.prob:
            image, window = self._expanded(image, rng, where)
            image = _recoded(image, flag, where)
            windows.append(window)
        if self.fixed_windows:
            image = _recoded(image, flag, where)
            windows += self.fixed_windows
        elif self._samplers and rng is not None and boxes is not None:
            for window in windows:
                boxes = boxes.seen(window, self._constraint)
            crops = np.concatenate([sampler(boxes, rng) for sampler in self._samplers])
            if len(crops):
                window = crops[rng.integers(len(crops))]
                image = _recoded(_cropped(image, window), flag, where)
                windows.append(window)
        return image, tuple(windows)

    def _expanded(self, image: Pixels, rng: np.random.Generator, where: str) -> tuple[Pixels, Array]:
        """The image at a random place of a larger one, which is filled with the mean values, and the window."""
        height, width, channels = image.shape
        if len(self._border) not in (1, channels):
            what = f"transform_param has {len(self._border)} mean_values for {channels} channels"
            raise RistrettoError(what, where=where, hint="Set one, or one per channel.")
        ratio = rng.uniform(1, self._expansion.max_expand_ratio) if self._expansion is not None else 1.0
        new_height, new_width = int(height * ratio), int(width * ratio)
        if new_height * new_width > MAX_PIXELS:
            what = f"expand_param would expand the {height}x{width} image to {new_height}x{new_width}"
            raise RistrettoError(what, where=where, hint="Reduce max_expand_ratio.")
        top, left = (int(rng.uniform(0, whole - part)) for whole, part in ((new_height, height), (new_width, width)))
        fill = np.rint(self._border).clip(0, 255).astype(np.uint8)
        out = np.broadcast_to(fill, (new_height, new_width, channels)).copy()
        out[top : top + height, left : left + width] = image
        ends = np.array([-left, -top, new_width - left, new_height - top], np.float32)
        return out, np.asarray(ends / np.array([width, height, width, height], np.float32))


def without_augmentation(message: Message) -> tuple[Message, list[str]]:
    """A data layer's LayerParameter without random augmentation, a copy, and the names of what was removed."""
    found = type(message)()
    found.CopyFrom(message)
    names = _active(message.transform_param, message.annotated_data_param)
    for name in names:
        (found.annotated_data_param if name == "batch_sampler" else found.transform_param).ClearField(name)
    return found, names


def _active(param: Message, annotated: Message | None) -> list[str]:
    """The names of the settings that change images at random."""
    samplers = [] if annotated is None else [one for one in annotated.batch_sampler if _draws(one)]
    distorts = any(value > 0 for field, value in param.distort_param.ListFields() if field.name.endswith("_prob"))
    active = {
        "noise_param": Noise.is_in(param.noise_param),
        "distort_param": distorts,
        "expand_param": _expands(param),
        "batch_sampler": any(not _shows_all(sampler) for sampler in samplers),
    }
    return [name for name, is_active in active.items() if is_active]


def _cropped(image: Pixels, window: Array) -> Pixels:
    """The pixels in a window; at least one."""
    height, width, _ = image.shape
    left, top, right, bottom = (window * np.array([width, height, width, height], np.float32)).tolist()
    columns, rows = max(int(right - left), 1), max(int(bottom - top), 1)
    left, top = min(int(left), width - columns), min(int(top), height - rows)
    return np.ascontiguousarray(image[top : top + rows, left : left + columns])


def _recoded(image: Pixels, flag: int | None, where: str) -> Pixels:
    """The image (H, W, C) after JPEG compression; flag is decode's, None for no compression."""
    if flag is None:
        return image
    try:
        done, data = cv2.imencode(".jpg", image)
    except cv2.error:
        done, data = False, np.empty(0, np.uint8)
    if not done:
        raise RistrettoError("the image cannot be compressed as JPEG", where=where)
    return decode(data.tobytes(), flag, where)


def _expands(param: Message) -> bool:
    if not param.HasField("expand_param"):
        return False
    ratio = param.expand_param.max_expand_ratio
    if not 1 < ratio < np.inf:
        raise LayerError(f"expand_param.max_expand_ratio is {ratio:g}", hint="It must be more than 1.")
    return bool(param.expand_param.prob > 0 and ratio - 1 >= _MIN_EXPANSION)


def _draws(sampler: Message) -> bool:
    """Whether a BatchSampler may give any crop."""
    none_wanted = sampler.HasField("max_sample") and sampler.max_sample == 0
    return bool(sampler.use_original_image and sampler.max_trials > 0 and not none_wanted)


def _shows_all(sampler: Message) -> bool:
    """Whether all crops of a BatchSampler are the whole image; then its aspect ratio cannot differ."""
    scales = (sampler.sampler.min_scale, sampler.sampler.max_scale)
    return scales == (1, 1) and not sampler.sample_constraint.ListFields()
