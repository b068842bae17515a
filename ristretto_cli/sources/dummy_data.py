"""DummyData: blobs from fillers."""

from __future__ import annotations

import numpy as np

from ristretto_cli.caffe_io.messages import Message, new
from ristretto_cli.errors import LayerError
from ristretto_cli.fillers import check_filler, fill
from ristretto_cli.ops import Array, Shape
from ristretto_cli.sources.settings import check_tops, checked_shape, for_top
from ristretto_cli.sources.source import Source, source

LEGACY = ("num", "channels", "height", "width")


@source("DummyData")
class DummyData(Source):
    """Each top filled in each batch by its own filler or a common one; zeros if there is none."""

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 1)
        param, tops = message.dummy_data_param, len(message.top)
        fillers = list(param.data_filler) or [new("FillerParameter", type="constant")]
        for_top(len(fillers), tops, "dummy_data_param.data_filler")
        self._fillers = fillers * tops if len(fillers) == 1 else fillers
        self._rng = np.random.default_rng(seed)
        self.shapes = _shapes(param, tops)
        for filler, shape in zip(self._fillers, self.shapes, strict=True):
            check_filler(filler, shape)

    def next(self) -> tuple[Array, ...]:
        return tuple(
            fill(filler, shape, rng=self._rng) for filler, shape in zip(self._fillers, self.shapes, strict=True)
        )


def _shapes(param: Message, tops: int) -> tuple[Shape, ...]:
    legacy = any(len(getattr(param, name)) for name in LEGACY)
    if legacy and len(param.shape):
        raise LayerError("dummy_data_param has both shape and num, channels, height or width")
    names = LEGACY if legacy else ("shape",)
    for name in names:
        for_top(len(getattr(param, name)), tops, f"dummy_data_param.{name}")
    columns = [list(getattr(param, name)) for name in names]
    columns = [column * tops if len(column) == 1 else column for column in columns]
    rows = list(zip(*columns, strict=True))
    return tuple(checked_shape(row if legacy else row[0].dim, f"top {i}") for i, row in enumerate(rows))
