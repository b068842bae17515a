"""CsvData: a label and numbers in each line of a text file."""

from __future__ import annotations

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.ops import Array
from ristretto_cli.sources.settings import batch_size_of, check_tops, existing, read_lines
from ristretto_cli.sources.source import Source, source


@source("CsvData")
class CsvData(Source):
    """Lines `label,number,number...` of a CSV file, data_param.source."""

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 2)
        batch = batch_size_of(message.data_param, "data_param")
        path = existing(message.data_param.source, "data_param.source")
        lines = [line for line in read_lines(path, "data_param.source") if line]
        try:
            self._rows = np.array([[float(number) for number in line.split(",")] for line in lines], np.float32)
        except ValueError as error:
            raise LayerError(f"{path} is not a table of numbers: {error}") from None
        if self._rows.ndim != 2 or self._rows.shape[1] < 2:
            raise LayerError(f"{path} needs lines of a label and one or more numbers")
        self._next = 0
        self.shapes = ((batch, self._rows.shape[1] - 1), (batch,))

    def next(self) -> tuple[Array, ...]:
        batch = self.shapes[1][0]
        rows = self._rows.take(range(self._next, self._next + batch), axis=0, mode="wrap")
        self._next += batch
        return rows[:, 1:], rows[:, 0]
