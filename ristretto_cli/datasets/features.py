"""Extraction of a net's blobs to databases or .npz files, for `ristretto extract_features`."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, Protocol

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.caffe_io.files import atomic_write, cannot_write, check_writable
from ristretto_cli.caffe_io.npz import member_name
from ristretto_cli.datasets.datum import float_datum
from ristretto_cli.datasets.new_database import Backend, NewDatabase, check_new, new_database
from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import DYNAMIC, Array, Shape, show
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.evaluation import OnBatch, ignore_progress, run_batches
from ristretto_cli.scoring.execution import DEFAULT, Execution

log = logging.getLogger("ristretto")

_NPZ = ".npz"
_MAX_AXES = 4  # images, channels, height, width: the axes of a Datum


def extract_features(
    net: Net,
    targets: Sequence[tuple[str, str]],
    batches: int,
    backend: Backend,
    *,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    on_batch: OnBatch = ignore_progress,
) -> list[Shape]:
    """Run `batches` batches (1 or more) and write the final values of blobs; returns the shapes of their rows.

    targets: blobs, each with the file to write. A name that ends in .npz takes one array, (rows, ...), by the blob's
    name; any other is a new database of float records with keys 0000000000, 0000000001, ... A blob without axes
    gives one row per batch; one whose shape differs between batches does not fit .npz, and has DYNAMIC extents in the
    result. RistrettoError(s) for unknown blobs and for targets that cannot be written.
    """
    blobs = {top.name: top for layer in net.layers for top in layer.tops}
    shapes = {name: top.shape for name, top in blobs.items()}
    raise_all(_faults(net, shapes, targets))
    on_host = {blob for blob, _ in targets if blobs[blob].on_host}

    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        return {blob: run.final[blob] for blob, _ in targets if blob not in on_host}

    session = compile_net(net, select, rng=rng, execution=execution, on_host=on_host)
    rows = [_rows(shapes[blob], batches) for blob, _ in targets]
    counts = [0] * len(targets)
    extents: list[Shape | None] = [None] * len(targets)  # of a row
    with DataLoader(net) as loader, ExitStack() as stack:
        sinks: list[tuple[str, _Sink]] = []
        for (blob, target), shape in zip(targets, rows, strict=True):
            log.info("Opening dataset %s", target)
            sinks.append((blob, stack.enter_context(_sink(target, blob, shape, backend))))
        log.info("Extracting Features")
        for results in run_batches(session, loader, batches, label="extracting", on_batch=on_batch):
            for i, (blob, sink) in enumerate(sinks):
                array = results[blob].reshape(results[blob].shape or (1,))
                sink.add(array)
                counts[i] += len(array)
                extents[i] = _common(array.shape[1:], extents[i])
    for (blob, _), count in zip(targets, counts, strict=True):
        log.info("Extracted features of %d query images for feature blob %s", count, blob)
    log.info("Successfully extracted the features!")
    return [(count, *(shape or ())) for count, shape in zip(counts, extents, strict=True)]


def _common(shape: Shape, before: Shape | None) -> Shape:
    """A shape, with DYNAMIC for extents that differ from those before."""
    if before is None or len(shape) != len(before):
        return shape
    return tuple(n if n == other else DYNAMIC for n, other in zip(shape, before, strict=True))


def _rows(shape: Shape, batches: int) -> Shape:
    """The shape of a blob's rows over some batches."""
    first, *rest = shape or (1,)
    return (first * batches, *rest)


def _faults(net: Net, shapes: Mapping[str, Shape], targets: Sequence[tuple[str, str]]) -> Iterator[RistrettoError]:
    taken = set()
    for blob, target in targets:
        if blob not in shapes:
            what = f'Unknown feature blob name "{blob}" in the network'
            yield RistrettoError(what, where=net.file, hint=did_you_mean(blob, shapes))
        elif len(shapes[blob]) > _MAX_AXES and not target.endswith(_NPZ):
            what = f'the blob "{blob}" is {show(shapes[blob])}, but the records of a database have four axes'
            yield RistrettoError(what, where=net.file, hint=f"Use a target that ends in {_NPZ}.")
        elif DYNAMIC in shapes[blob] and target.endswith(_NPZ):
            what = f'the blob "{blob}" is {show(shapes[blob])}: its number of items is variable'
            yield RistrettoError(what, where=net.file, hint=f"Use a target that does not end in {_NPZ}.")
        try:
            if target.endswith(_NPZ):
                check_writable(target)
            else:
                check_new(target)
        except RistrettoError as fault:
            yield fault
            continue
        if os.path.realpath(target) in taken:
            yield RistrettoError("is given for two outputs", where=target)
        taken.add(os.path.realpath(target))


class _Sink(Protocol):
    """Receives the rows of successive batches."""

    def add(self, rows: Array) -> None: ...


def _sink(target: str, blob: str, shape: Shape, backend: Backend) -> AbstractContextManager[_Sink]:
    return _npz(target, blob, shape) if target.endswith(_NPZ) else _database(target, blob, backend)


class _DatabaseSink:
    def __init__(self, database: NewDatabase, blob: str) -> None:
        self._database = database
        self._blob = blob

    def add(self, rows: Array) -> None:
        for row in rows:
            self._database.put(b"%010d" % self._database.count, float_datum(row))
            if self._database.count % 1000 == 0:
                what = "Extracted features of %d query images for feature blob %s"
                log.info(what, self._database.count, self._blob)


@contextmanager
def _database(target: str, blob: str, backend: Backend) -> Iterator[_Sink]:
    with new_database(target, backend) as database:
        yield _DatabaseSink(database, blob)


class _ArraySink:
    def __init__(self, stream: IO[bytes], target: str, blob: str, row: Shape) -> None:
        self._stream = stream
        self._target = target
        self._blob = blob
        self._row = row

    def add(self, rows: Array) -> None:
        if rows.shape[1:] != self._row:
            what = (
                f'the blob "{self._blob}" is {show(rows.shape[1:])} for an image, but {show(self._row)} for the first'
            )
            hint = f"Use a target that does not end in {_NPZ}."
            raise RistrettoError(f"{what}, so they do not fit one array", where=self._target, hint=hint)
        try:
            self._stream.write(np.ascontiguousarray(rows, "<f4").tobytes())
        except OSError as fault:  # here, where the target is known
            raise cannot_write(self._target, fault) from None


@contextmanager
def _npz(target: str, blob: str, shape: Shape) -> Iterator[_Sink]:
    """An .npz file of one array, whose rows are written as they come."""
    with (
        atomic_write(target) as temporary,
        zipfile.ZipFile(temporary, "w", allowZip64=True) as archive,
        archive.open(member_name(blob), "w", force_zip64=True) as member,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        yield _ArraySink(member, target, blob, shape[1:])
