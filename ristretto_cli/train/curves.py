"""Curves of training logs, Caffe's or ristretto's: loss, learning rate, and outputs of train and test nets."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.errors import RistrettoError

_VALUE = r"([-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|inf|nan))(?![\w.])"
_ITERATION = re.compile(r"Iteration (\d{1,12})\b")
_LOSS = re.compile(rf"Iteration \d{{1,12}}(?: \([^()]*\))?, loss = {_VALUE}")
_RATE = re.compile(rf"Iteration \d{{1,12}}, lr = {_VALUE}")
_TESTING = re.compile(r"Testing net \(#(\d{1,4})\)")
_OUTPUT = re.compile(rf"(Train|Test) net output #(\d{{1,6}}): (\S{{1,200}}) = {_VALUE}(?: \(\* \S+ = \S+ loss\))?")
_MAX_LINE_BYTES = 1 << 16

Report = Callable[[int, int, str], None]  # bytes read, bytes in total, the file


@dataclass(frozen=True)
class Curve:
    """Values over iterations, in order. is_loss: whether it is an output with a loss weight."""

    iterations: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    is_loss: bool = False

    def smoothed(self, points: int) -> Curve:
        """The curve with each value replaced by the mean of the last `points` (1 or more) values."""
        sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(self.values, nan=0.0, posinf=0.0, neginf=0.0))])
        counts = np.concatenate([[0], np.cumsum(np.isfinite(self.values))])
        ends = np.arange(1, len(self.values) + 1)
        starts = np.maximum(ends - points, 0)
        finite = counts[ends] - counts[starts]
        means = np.where(finite > 0, (sums[ends] - sums[starts]) / np.maximum(finite, 1), np.nan)
        return Curve(self.iterations, means, self.is_loss)


@dataclass(frozen=True)
class Curves:
    """The curves of one log; None or missing if it has no lines for them.

    loss: as displayed, smoothed by average_loss. train, test: by the output's name, followed by its number if several
    have the same name, and by ` (#i)` for test net i > 0.
    """

    file: str
    loss: Curve | None = None
    rate: Curve | None = None
    train: Mapping[str, Curve] = field(default_factory=dict)
    test: Mapping[str, Curve] = field(default_factory=dict)


def read_curves(path: str | Path, on_read: Report | None = None) -> Curves:
    """The curves in a log. If training was resumed, iterations that were run twice count once, the last time.

    RistrettoError if the file cannot be read or is not a training log.
    """
    parser = _LogParser()
    with open_to_read(path) as stream:
        size = max(stream.seek(0, 2), 1) if stream.seekable() else 1
        if stream.seekable():
            stream.seek(0)
        done = 0
        while line := stream.readline(_MAX_LINE_BYTES):
            parser.read(line.decode("utf-8", "replace"))
            done += len(line)
            if on_read is not None and (done * 100 // size) != (done - len(line)) * 100 // size:
                on_read(done, size, Path(path).name)
    return parser.curves(str(path))


class RunningLog(logging.Handler):
    """Collects the curves of a training from its log lines, while it runs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._parser = _LogParser()

    def emit(self, record: logging.LogRecord) -> None:
        """Read a line of the log."""
        self._parser.read(record.getMessage())

    def curves(self, file: str) -> Curves | None:
        """The curves so far; None if no line had values. file: the name they get."""
        return self._parser.curves(file) if self._parser.has_points else None


@contextmanager
def running_log() -> Iterator[RunningLog]:
    """Collect curves from the log of the block, whatever its level lets the user see."""
    logger, handler = logging.getLogger("ristretto"), RunningLog()
    level = logger.level
    # Handlers for the user have filters of their own.
    logger.setLevel(min(level, logging.INFO))
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# Identifies a curve: the kind (loss, rate, Train or Test), the test net's number, the output's number and name.
_Key = tuple[str, int, int, str]


class _LogParser:
    """Collects points line by line."""

    def __init__(self) -> None:
        self._iteration = -1
        self._net = 0
        self._points: dict[_Key, list[tuple[int, float]]] = {}
        self._losses: set[_Key] = set()

    @property
    def has_points(self) -> bool:
        """Whether a line had values."""
        return bool(self._points)

    def read(self, line: str) -> None:
        if found := _ITERATION.search(line):
            self._set_iteration(int(found[1]))
        if self._iteration < 0:
            return
        if found := _TESTING.search(line):
            self._net = int(found[1])
        if found := _LOSS.search(line):
            self._add(("loss", 0, 0, ""), found[1])
        elif found := _RATE.search(line):
            self._add(("rate", 0, 0, ""), found[1])
        elif found := _OUTPUT.search(line):
            key = (found[1], self._net if found[1] == "Test" else 0, int(found[2]), found[3])
            self._add(key, found[4])
            if found[0].endswith(" loss)"):
                self._losses.add(key)

    def curves(self, file: str) -> Curves:
        if not self._points:
            raise RistrettoError(
                'contains no training log lines, such as "Iteration 100, loss = 0.2", "Iteration 100, lr = 0.01" or '
                '"Test net output #0: accuracy = 0.97"',
                where=file,
                hint="Use the stderr of `train`, with display other than 0.",
            )
        loss, rate = (self._curve((kind, 0, 0, "")) for kind in ("loss", "rate"))
        return Curves(file, loss, rate, self._named("Train"), self._named("Test"))

    def _set_iteration(self, iteration: int) -> None:
        if iteration < self._iteration:  # a resume
            for points in self._points.values():
                while points and points[-1][0] >= iteration:
                    points.pop()
        self._iteration = iteration

    def _add(self, key: _Key, text: str) -> None:
        try:
            value = float(text)
        except ValueError:  # such as 1.2.3
            return
        points = self._points.setdefault(key, [])
        if points and points[-1][0] == self._iteration:
            points.pop()
        points.append((self._iteration, value))

    def _named(self, kind: str) -> dict[str, Curve]:
        keys = sorted(key for key in self._points if key[0] == kind)
        names = Counter((net, name) for _, net, _, name in keys)
        named = {}
        for key in keys:
            _, net, index, name = key
            alike = f" #{index}" if names[net, name] > 1 else ""
            curve = self._curve(key)
            if curve is not None:
                named[f"{name}{alike}{f' (#{net})' if net else ''}"] = curve
        return named

    def _curve(self, key: _Key) -> Curve | None:
        points = self._points.get(key)
        if not points:
            return None
        iterations, values = zip(*points, strict=True)
        return Curve(np.array(iterations, np.int64), np.array(values, np.float64), key in self._losses)
