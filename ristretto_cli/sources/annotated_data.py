"""AnnotatedData, from SSD: images with object boxes, from LMDB or LevelDB."""

from __future__ import annotations

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import DYNAMIC, Array, Shape
from ristretto_cli.sources.annotations import COLUMNS, AnnotatedBoxes
from ristretto_cli.sources.image_records import ImageRecords, Images
from ristretto_cli.sources.resize_param import Fit
from ristretto_cli.sources.settings import check_tops
from ristretto_cli.sources.source import Source, source
from ristretto_cli.sources.transform import Transform, Views


@source("AnnotatedData")
class AnnotatedData(Source):
    """Images (N, C, H, W) of AnnotatedDatum records and, with a second top, their boxes (1, 1, M, 8).

    A row is a box: the image's index in the batch, group_label (the class), instance_id, xmin, ymin, xmax and ymax
    relative to the visible part of the image, and 1 if it is difficult. M varies from batch to batch; without any box
    there is one row of -1. If neither anno_type nor the first record declares boxes, the second top
    has the images' labels, (N, 1, 1, 1).

    Images and boxes are resized, cropped and mirrored as in SSD; boxes outside the visible part are
    dropped, and so are those that emit_constraint rejects. SSD's random augmentation for training -
    distort_param, expand_param, batch_sampler, noise_param, in this order - is refused in the TEST phase (see
    augmentation.py). label_map_file is not read by this layer, nor is it in SSD.
    """

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 1, 2)
        annotated = message.annotated_data_param
        rng = np.random.default_rng(seed)
        self._transform = Transform(message.transform_param, phase, rng, annotated=annotated)
        many = message.data_param.batch_size > 1 and not self._transform.crops
        if self._resizes_to_many_sizes() and many:
            what = "resize_mode FIT_SMALL_SIZE gives images of different sizes"
            raise LayerError(what, hint="Set batch_size to 1, or crop_size.")
        if self._transform.changes_size and self._transform.resize is None and many:
            what = "batch_sampler and expand_param give images of different sizes"
            raise LayerError(what, hint="Add a resize_param to transform_param.")
        transform = message.transform_param
        self._constraint = transform.emit_constraint if transform.HasField("emit_constraint") else None
        self._images = ImageRecords(message.data_param, self._transform, annotated=True)
        self._typed = bool(annotated.HasField("anno_type"))
        self._has_boxes = self._typed or bool(self._images.first.message.HasField("type"))
        shape = self._images.shape
        labels = self.label_shape(shape[0]) if self._has_boxes else (shape[0], 1, 1, 1)
        self.shapes = (shape, labels)[: len(message.top)]

    def next(self) -> tuple[Array, ...]:
        images = self._images.next()
        views = self._transform.views(images.pixels)
        out = self._transform(images.pixels, views)
        if len(self.shapes) == 1:
            return (out,)
        return out, self._boxes(images, views) if self._has_boxes else self._labels(images)

    @classmethod
    def label_shape(cls, batch: int) -> Shape:
        return (1, 1, DYNAMIC, COLUMNS)

    def close(self) -> None:
        self._images.close()

    def _resizes_to_many_sizes(self) -> bool:
        return self._transform.resize is not None and self._transform.resize.fit is Fit.COVER

    def _boxes(self, images: Images, views: Views) -> Array:
        rows = [self._boxes_of(images, views, i).rows(i) for i in range(len(images.items))]
        table = np.concatenate(rows)
        return (table if len(table) else np.full((1, COLUMNS), -1, np.float32))[None, None]

    def _boxes_of(self, images: Images, views: Views, i: int) -> AnnotatedBoxes:
        """The boxes of one image of the batch, relative to its visible part."""
        item, where, resize = images.items[i], self._images.where(images.items[i]), self._transform.resize
        if not (self._typed or item.message.HasField("type")):
            what = "the record has no annotation type, but the first one has"
            raise RistrettoError(what, where=where, hint="Set annotated_data_param { anno_type: BBOX }.")
        boxes = AnnotatedBoxes.of(item.message, where)
        for window in images.windows[i]:
            boxes = boxes.seen(window, self._constraint)
        if resize is not None:
            boxes = boxes.resized(resize, *images.extents[i])
        window = self._transform.window(views, i)
        boxes = boxes.seen(window, self._constraint)
        if views.mirrored[i]:
            boxes = boxes.mirrored()
        if resize is not None:
            boxes = boxes.extrapolated(resize, *images.extents[i], window, where)
        return boxes

    def _labels(self, images: Images) -> Array:
        for item in images.items:
            if not item.datum.HasField("label"):
                raise RistrettoError("the record has no boxes and no label", where=self._images.where(item))
        labels = np.array([item.datum.label for item in images.items], np.float32)
        return labels.reshape(-1, 1, 1, 1)
