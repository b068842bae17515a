"""SSD's random augmentation, and its replacement here.

Colour distortion, expansion, random crops (batch_sampler) and noise are meant for training. In the
TEST phase they would make scores random, so they are rejected. TRAIN data only serve for calibration,
so there augmentation is omitted, with a warning, and images are only resized. Settings that change
nothing (probabilities of 0, a batch_sampler of the whole image) are allowed, but have one effect: SSD
compresses the image as JPEG again, and so does this.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np

from ristretto_cli.caffe_io.messages import TEST, Message
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.sources.images import Pixels, decode

log = logging.getLogger("ristretto")

_MIN_EXPANSION = 1e-2


class Augmentation:
    """The augmentation of a TransformationParameter and an AnnotatedDataParameter (None: the layer has no boxes).

    crops_whole: whether a batch_sampler draws crops that are all the whole image. recodings: how often an encoded
    image is recompressed. LayerError for settings that cannot be scored.
    """

    def __init__(self, param: Message, annotated: Message | None, phase: int) -> None:
        samplers = [] if annotated is None else [one for one in annotated.batch_sampler if _draws(one)]
        crops = any(not _shows_all(sampler) for sampler in samplers)
        distorts = any(value > 0 for field, value in param.distort_param.ListFields() if field.name.endswith("_prob"))
        active = {
            "noise_param": _makes_noise(param.noise_param),
            "distort_param": distorts,
            "expand_param": _expands(param),
            "batch_sampler": crops,
        }
        self._left_out = [name for name, is_active in active.items() if is_active]
        if self._left_out and phase == TEST:
            raise LayerError(
                f"{', '.join(self._left_out)} would change the images at random in the TEST phase",
                hint="Remove the augmentation from this layer; in the TRAIN phase it is omitted.",
            )
        distorted = param.HasField("distort_param") and not distorts
        self.crops_whole = bool(samplers) and not crops
        self.recodings = int(distorted) + int(self.crops_whole)

    def warn_once(self) -> None:
        """Log the omitted augmentation, at the first call."""
        if self._left_out:
            log.warning("augmentation is omitted: %s", ", ".join(self._left_out))
        self._left_out = []


def recoded(image: Pixels, flag: int, where: str) -> Pixels:
    """The image (H, W, C) after JPEG compression; flag is decode's."""
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
    if not ratio > 1:
        raise LayerError(f"expand_param.max_expand_ratio is {ratio:g}", hint="It must be more than 1.")
    return bool(param.expand_param.prob > 0 and ratio - 1 >= _MIN_EXPANSION)


def _makes_noise(param: Message) -> bool:
    """Whether a NoiseParameter does anything. Its prob has no effect in SSD."""
    switches = any(value for _, value in param.ListFields() if isinstance(value, bool))
    return switches or param.jpeg > 0


def _draws(sampler: Message) -> bool:
    """Whether a BatchSampler may give any crop."""
    none_wanted = sampler.HasField("max_sample") and sampler.max_sample == 0
    return bool(sampler.use_original_image and sampler.max_trials > 0 and not none_wanted)


def _shows_all(sampler: Message) -> bool:
    """Whether all crops of a BatchSampler are the whole image; then its aspect ratio cannot differ."""
    scales = (sampler.sampler.min_scale, sampler.sampler.max_scale)
    return scales == (1, 1) and not sampler.sample_constraint.ListFields()
