"""Data: Datum records from LMDB or LevelDB."""

from __future__ import annotations

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.ops import Array
from ristretto_cli.sources.image_records import ImageRecords
from ristretto_cli.sources.settings import check_tops
from ristretto_cli.sources.source import Source, source
from ristretto_cli.sources.transform import Transform


@source("Data")
class Data(Source):
    """Images (N, C, H, W) and, with a second top, labels (N,); a record without a label has label 0.

    The first record gives the shape of the first batch, and that of each batch its own first record, as in Caffe. Each
    image is cropped by its own size; an image that then differs from the first one of its batch is an error that names
    its key.
    """

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 1, 2)
        self._transform = Transform(message.transform_param, phase, np.random.default_rng(seed))
        self._images = ImageRecords(message.data_param, self._transform)
        self._labels = len(message.top) == 2
        shape = self._images.shape
        self.shapes = (shape, shape[:1]) if self._labels else (shape,)

    def next(self) -> tuple[Array, ...]:
        images = self._images.next()
        out = self._transform(images.pixels)
        return (out, np.array([item.datum.label for item in images.items], np.float32)) if self._labels else (out,)

    def close(self) -> None:
        self._images.close()
