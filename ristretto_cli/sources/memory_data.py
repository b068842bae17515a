"""MemoryData: images and labels supplied by a program."""

from __future__ import annotations

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.sources.external import ExternalSource
from ristretto_cli.sources.settings import batch_size_of, check_tops, checked_shape
from ristretto_cli.sources.source import source


@source("MemoryData")
class MemoryData(ExternalSource):
    """Images (batch_size, channels, height, width), which are not transformed, and labels (batch_size)."""

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        super().__init__(message, phase, seed=seed)
        check_tops(message, 2, 2)
        param = message.memory_data_param
        batch = batch_size_of(param, "memory_data_param")
        images = (batch, param.channels, param.height, param.width)
        self.shapes = (checked_shape(images, "memory_data_param"), (batch,))
