"""DataRistretto: Data with quantized images, of a fork of Ristretto."""

from __future__ import annotations

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.fork_fields import formats_of
from ristretto_cli.ops import Array
from ristretto_cli.sources.data import Data
from ristretto_cli.sources.source import source


@source("DataRistretto")
class DataRistretto(Data):
    """A Data layer whose images are quantized to the format of tops in quantization_param, in TRAIN too."""

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        self._formats = formats_of(message.quantization_param)
        self._ops = numpy_ops(np.random.default_rng(seed))
        super().__init__(message, phase, seed=seed)

    def next(self) -> tuple[Array, ...]:
        images, *labels = super().next()
        number_format = self._formats.layer_out
        if number_format is not None:
            images = number_format.quantize(self._ops, images, self._formats.rounding)
        return (images, *labels)
