"""DetectionEvaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.average_precision import average_precision
from ristretto_cli.layers.boxes import Boxes, ImageSizes
from ristretto_cli.layers.host_layer import Compute, MetricLayer, MetricOptions, MetricValue
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import DYNAMIC, AnyArray, Array, Shape, fits, show

_NOTHING = -1  # the image or the label of empty rows
_MAX_CLASSES = 2**16
_IMAGE, _LABEL, _SCORE, _BOX = 0, 1, 2, slice(3, 7)  # the columns of both bottoms; the ground truth has no score
_DIFFICULT = 7


@layer_type("DetectionEvaluate")
class DetectionEvaluate(MetricLayer):
    """SSD's evaluation: detections matched with ground truth; over all batches, mean average precision.

    Bottoms: DetectionOutput's top (1, 1, K, 7), and ground truth (1, 1, M, 8) with rows of image index,
    class, an unused number, left, top, right, bottom, and whether the object is difficult; it ends where
    the image is -1. Top (1, 1, R, 5): for each class except the background -1, class, number of objects, -1, -1; for
    each detection its image, class, score, and 1, 0 for a true positive, 0, 1 for a false positive, and 0, 0 if
    it is not counted.
    """

    bottoms = (2, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        for which, shape, columns in (("first", bottoms[0], 7), ("second", bottoms[1], 8)):
            if not fits(shape, (1, 1, DYNAMIC, columns)):
                raise LayerError(f"its {which} bottom is {show(shape)}; expected 1x1x?x{columns}")
        param = layer.message.detection_evaluate_param
        if not param.HasField("num_classes"):
            raise LayerError("num_classes is missing", hint="Set the number of classes, including the background.")
        if not _labels(param) or param.num_classes > _MAX_CLASSES:
            raise LayerError(f"num_classes is {param.num_classes}; it must be 2 to {_MAX_CLASSES}")
        if not param.overlap_threshold > 0:
            raise LayerError(f"overlap_threshold is {param.overlap_threshold:g}; it must be more than 0")
        resize = param.resize_param
        if param.HasField("resize_param") and not (resize.height > 0 and resize.width > 0):
            raise LayerError("resize_param needs a height and a width")
        return [(1, 1, DYNAMIC, 5)]

    def start(self, layer: Layer) -> Compute:
        return _Evaluation(layer.message.detection_evaluate_param).run

    def compute(self, layer: Layer, tops: Sequence[Array], metric_options: MetricOptions) -> MetricValue:
        """Mean average precision and the average precision of each class, as computed by SSD's solver."""
        rows = np.concatenate([top.reshape(-1, 5) for top in tops])
        counts = rows[:, _IMAGE] == _NOTHING
        counted = ~counts & (rows[:, 3:] != 0).any(1)
        precisions = {}
        for label in _labels(layer.message.detection_evaluate_param):
            of_label = rows[:, _LABEL] == label
            there = int(rows[of_label & counts, 2].sum(dtype=np.float64))
            found = rows[of_label & counted]
            precisions[f"class{label}"] = average_precision(
                found[:, _SCORE], found[:, 3] == 1, there, metric_options.ap_version
            )
        return MetricValue(float(np.mean(list(precisions.values()))), precisions)


class _Evaluation:
    """One pass over the data, batch by batch."""

    def __init__(self, param: Message) -> None:
        self._param = param
        resize = param.resize_param if param.HasField("resize_param") else None
        self._sizes = ImageSizes.read(param.name_size_file, resize) if param.HasField("name_size_file") else None
        self._batches = 0
        self._images = 0  # in a batch

    def run(self, bottoms: Sequence[Array]) -> Sequence[Array]:
        found = _whole(bottoms[0].reshape(-1, 7))
        found = found[(found[:, _IMAGE] != _NOTHING) & (found[:, _LABEL] != _NOTHING)]
        truth = _whole(bottoms[1].reshape(-1, 8))
        truth = truth[: int(np.argmax(np.append(truth[:, _IMAGE], _NOTHING) == _NOTHING))]
        for what, rows in (("the detection results", found), ("the dataset", truth)):
            if (rows[:, _LABEL] == self._param.background_label_id).any():
                raise LayerError(f"there is an object of the background class in {what}")
        # DIFFERS: SSD takes the next size for each image with detections; here each image has its own.
        numbers = np.concatenate([found[:, _IMAGE], truth[:, _IMAGE]])
        self._images = max(self._images, int(numbers.max(initial=_NOTHING)) + 1)
        with np.errstate(all="ignore"):
            parts = [self._counts(truth), *self._matched(found, truth)]
        self._batches += 1
        return [np.concatenate(parts).astype(np.float32).reshape(1, 1, -1, 5)]

    def _counts(self, truth: Array) -> AnyArray:
        """The number of objects of each class: rows of the top."""
        counts = truth if self._param.evaluate_difficult_gt else truth[truth[:, _DIFFICULT] == 0]
        labels = np.array(_labels(self._param))
        there = [(counts[:, _LABEL] == label).sum() for label in labels]
        return np.stack([np.full(len(labels), -1), labels, there, *[np.full(len(labels), -1)] * 2], 1)

    def _matched(self, found: Array, truth: Array) -> Iterator[AnyArray]:
        """The detections, by image and by class: rows of the top."""
        for image in np.unique(found[:, _IMAGE]):
            here = found[found[:, _IMAGE] == image]
            for label in np.unique(here[:, _LABEL]):
                objects = here[here[:, _LABEL] == label]
                there = truth[(truth[:, _IMAGE] == image) & (truth[:, _LABEL] == label)]
                if len(there):
                    objects = objects[np.argsort(-objects[:, _SCORE], kind="stable")]
                matches = self._matches(objects, there, int(image)) if len(there) else [(0, 1)] * len(objects)
                yield np.concatenate([objects[:, :3], matches], 1)

    def _matches(self, objects: Array, there: Array, image: int) -> list[tuple[int, int]]:
        """True positive, false positive or neither: detections of one class in an image, best first."""
        overlaps = self._boxes(objects, image).overlaps(self._boxes(there, image))
        nearest = overlaps.argmax(1)
        enough = overlaps.max(1) >= self._param.overlap_threshold
        taken: set[int] = set()
        matches = []
        for near, counts in zip(nearest.tolist(), enough.tolist(), strict=True):
            if counts and there[near, _DIFFICULT] != 0 and not self._param.evaluate_difficult_gt:
                matches.append((0, 0))
            else:
                right = counts and near not in taken
                matches.append((1, 0) if right else (0, 1))
                taken.update([near] if right else [])
        return matches

    def _boxes(self, rows: Array, image: int) -> Boxes:
        if self._sizes is None:
            return Boxes.of(rows[:, _BOX])
        return self._sizes.in_pixels(rows[:, _BOX], self._batches * self._images + image)


def _whole(rows: Array) -> Array:
    """The rows with an image and a class, both truncated towards zero, as by a cast in C."""
    rows = rows[np.isfinite(rows[:, :2]).all(1)]
    return np.concatenate([np.trunc(rows[:, :2]), rows[:, 2:]], 1)


def _labels(param: Message) -> list[int]:
    """The classes except the background."""
    return [label for label in range(min(param.num_classes, _MAX_CLASSES)) if label != param.background_label_id]
