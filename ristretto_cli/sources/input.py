"""Input: blobs supplied by the user."""

from __future__ import annotations

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.sources.external import ExternalSource
from ristretto_cli.sources.settings import check_tops, checked_shape, for_top
from ristretto_cli.sources.source import source


@source("Input")
class Input(ExternalSource):
    """Blobs of the shapes of input_param: one for all tops, or one per top."""

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        super().__init__(message, phase, seed=seed)
        check_tops(message, 1)
        shapes = [
            checked_shape(shape.dim, f"input_param.shape {i}") for i, shape in enumerate(message.input_param.shape)
        ]
        if not shapes:
            raise LayerError("input_param.shape is not set", hint="Add input_param { shape { dim: 1 ... } }.")
        for_top(len(shapes), len(message.top), "input_param.shape")
        self.shapes = tuple(shapes * len(message.top) if len(shapes) == 1 else shapes)
