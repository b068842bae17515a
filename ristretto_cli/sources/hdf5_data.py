"""HDF5Data: rows of datasets named after the tops."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.hdf5 import HDF5_FAULTS, declares_too_much
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.libraries import h5py
from ristretto_cli.ops import Array, Shape, show
from ristretto_cli.sources.settings import (
    MAX_COUNT,
    batch_size_of,
    check_tops,
    checked_shape,
    existing,
    read_lines,
    words_of,
)
from ristretto_cli.sources.source import Source, source

_MAX_UNWRITTEN_BYTES = 1 << 26


@source("HDF5Data")
class HDF5Data(Source):
    """For each top, the next rows of the dataset of its name, from the files of a list in order.

    A batch may span files. With shuffle, the files are shuffled in each pass over the list, and the rows
    within each file. A whole file is in memory while its rows are read.
    """

    def __init__(self, message: Message, phase: int, *, seed: int = 0) -> None:
        check_tops(message, 1)
        if message.HasField("transform_param"):
            raise LayerError("HDF5Data layers do not transform data", hint="Remove transform_param.")
        param = message.hdf5_data_param
        self._batch = batch_size_of(param, "hdf5_data_param")
        self._tops = tuple(message.top)
        self._shuffle = bool(param.shuffle)
        self._rng = np.random.default_rng(seed)
        self._files = _read_list(param.source)
        self._order = self._turn(len(self._files))
        self._file = 0
        self._row_shapes = tuple(shape[1:] for shape in _shapes(self._files[self._order[0]], self._tops))
        self.shapes = tuple(
            checked_shape((self._batch, *shape), f"top {top}")
            for top, shape in zip(self._tops, self._row_shapes, strict=True)
        )
        self._blobs: tuple[Array, ...] = ()
        self._rows = self._turn(0)
        self._at = 0

    def next(self) -> tuple[Array, ...]:
        if not self._blobs:
            self._load()
        out = tuple(np.empty(shape, np.float32) for shape in self.shapes)
        done = 0
        while done < self._batch:
            if self._at == len(self._rows):
                self._advance()
            rows = self._rows[self._at : self._at + self._batch - done]
            for blob, top in zip(self._blobs, out, strict=True):
                top[done : done + len(rows)] = blob[rows]
            self._at += len(rows)
            done += len(rows)
        return out

    def close(self) -> None:
        self._blobs = ()

    def _advance(self) -> None:
        """Continue with the first row of the next file, or of this one if it is the only one."""
        if len(self._files) == 1:
            self._rows, self._at = self._turn(len(self._rows)), 0
            return
        self._file += 1
        if self._file == len(self._files):
            self._file = 0
            self._order = self._turn(len(self._files))
        self._load()

    def _load(self) -> None:
        file = self._files[self._order[self._file]]
        shapes = _shapes(file, self._tops)
        for top, shape, row in zip(self._tops, shapes, self._row_shapes, strict=True):
            if shape[1:] != row:
                raise LayerError(f"{file}: rows of {top} are {show(shape[1:])}, but {show(row)} in the first file")
        try:
            with h5py.File(file, "r") as h5:
                self._blobs = tuple(h5[top].astype(np.float32)[()] for top in self._tops)
        except HDF5_FAULTS as error:
            raise LayerError(f"{file} cannot be read: {error}") from None
        self._rows, self._at = self._turn(shapes[0][0]), 0

    def _turn(self, count: int) -> npt.NDArray[np.int64]:
        return self._rng.permutation(count) if self._shuffle else np.arange(count)


def _read_list(source: str) -> list[str]:
    path = existing(source, "hdf5_data_param.source")
    if h5py.is_hdf5(path):
        what = f"hdf5_data_param.source {path} is an HDF5 file, not a list of such files"
        raise LayerError(what, hint="Use a text file that contains its name.")
    files = words_of(" ".join(read_lines(path, "hdf5_data_param.source")))
    if not files:
        raise LayerError(f"hdf5_data_param.source {path} lists no files")
    for file in files:
        existing(file, f"{path}: the file")
    return files


def _shapes(file: str, tops: tuple[str, ...]) -> tuple[Shape, ...]:
    """The shapes of the tops' datasets, which must be numeric and have equal numbers of rows."""
    try:
        with h5py.File(file, "r") as h5:
            shapes = tuple(_shape(h5, top, file) for top in tops)
    except HDF5_FAULTS as error:
        raise LayerError(f"{file} is not an HDF5 file: {error}") from None
    for top, shape in zip(tops, shapes, strict=True):
        if shape[0] != shapes[0][0]:
            raise LayerError(f"{file}: {top} has {shape[0]} rows, but {tops[0]} has {shapes[0][0]}")
    return shapes


def _shape(h5: h5py.File, top: str, file: str) -> Shape:
    dataset = h5.get(top)
    if not isinstance(dataset, h5py.Dataset):
        raise LayerError(f'{file} has no dataset "{top}"', hint=f"Its datasets: {', '.join(h5) or 'none'}.")
    if dataset.dtype.kind not in "fiu":
        raise LayerError(f"{file}: dataset {top} contains {dataset.dtype}, not numbers")
    shape: Shape = dataset.shape or ()
    if not shape or prod(shape) < 1 or prod(shape) > MAX_COUNT:
        raise LayerError(f"{file}: dataset {top} has the shape {show(shape)}")
    # Rows that were never written are zeros and take no space; gigabytes of them are not data.
    if dataset.nbytes > _MAX_UNWRITTEN_BYTES and declares_too_much(dataset):
        raise LayerError(f"{file}: dataset {top} has the shape {show(shape)}, but most of it is not stored")
    return shape
