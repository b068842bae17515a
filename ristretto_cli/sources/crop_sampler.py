"""batch_sampler: SSD's random crops with constraints on the objects, for training."""

from __future__ import annotations

from math import isfinite

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Array
from ristretto_cli.sources.annotations import AnnotatedBoxes

_MEASURES = ("jaccard_overlap", "sample_coverage", "object_coverage")
_MOST_TRIALS = 10_000


class CropSampler:
    """The crops that a BatchSampler draws from an image: windows of random size and aspect ratio.

    A crop is dropped unless there is an object within all bounds of sample_constraint: on the overlap of crop and
    object (intersection over union), and on the share of the crop and of the object that lies in the other. In SSD,
    of several kinds of bounds only the first one counts. LayerError for settings that contradict each other.
    """

    def __init__(self, param: Message) -> None:
        sampler = param.sampler
        if not 0 < sampler.min_scale <= sampler.max_scale <= 1:
            raise LayerError(
                f"a batch_sampler has min_scale {sampler.min_scale:g} and max_scale {sampler.max_scale:g}",
                hint="They must be more than 0 and at most 1, in this order.",
            )
        low, high = sampler.min_aspect_ratio, sampler.max_aspect_ratio
        if not (0 < low <= high and isfinite(high)):
            raise LayerError(
                f"a batch_sampler has min_aspect_ratio {low:g} and max_aspect_ratio {high:g}",
                hint="They must be more than 0, in this order.",
            )
        if param.max_trials > _MOST_TRIALS:
            raise LayerError(f"a batch_sampler has max_trials {param.max_trials}; the maximum is {_MOST_TRIALS}")
        self._sampler = sampler
        self._constraint = param.sample_constraint
        self._trials = int(param.max_trials)
        self._most = int(param.max_sample) if param.HasField("max_sample") else self._trials

    def __call__(self, boxes: AnnotatedBoxes, rng: np.random.Generator) -> Array:
        """The crops (K, 4) of max_trials trials, up to max_sample: xmin, ymin, xmax, ymax, relative to the image."""
        sampler, count = self._sampler, self._trials
        scales = rng.uniform(sampler.min_scale, sampler.max_scale, count)
        ratios = rng.uniform(sampler.min_aspect_ratio, sampler.max_aspect_ratio, count)
        roots = np.sqrt(ratios.clip(scales**2, scales**-2.0))  # neither side exceeds the image
        sides = np.stack([scales * roots, scales / roots], axis=1).clip(max=1)
        starts = rng.random((count, 2)) * (1 - sides)
        windows = np.hstack([starts, starts + sides]).astype(np.float32).clip(0, 1)
        return np.asarray(windows[self._satisfied(windows, boxes)][: self._most])

    def _satisfied(self, windows: Array, boxes: AnnotatedBoxes) -> npt.NDArray[np.bool_]:
        given = {field.name: np.float32(value) for field, value in self._constraint.ListFields()}
        if not given:
            return np.ones(len(windows), np.bool_)
        within = np.ones((len(windows), len(boxes.corners)), np.bool_)
        for name, measure in zip(_MEASURES, boxes.relations(windows), strict=True):
            within &= (measure >= given.get(f"min_{name}", -np.inf)) & (measure <= given.get(f"max_{name}", np.inf))
        return np.asarray(within.any(axis=1))
