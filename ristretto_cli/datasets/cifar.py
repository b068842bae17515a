"""Conversion of CIFAR-10's binary batches to two databases, for `ristretto convert_cifar_data`."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from pathlib import Path

from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.datasets.datum import plain_datum
from ristretto_cli.datasets.new_database import Backend, NewDatabase, new_database
from ristretto_cli.errors import RistrettoError, raise_all

log = logging.getLogger("ristretto")

_SHAPE = (3, 32, 32)  # planes in the order red, green, blue, kept as in Caffe
_PIXELS = 3 * 32 * 32
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_FILE = "test_batch.bin"


def convert_cifar(
    input_folder: str, output_folder: str, backend: Backend, *, images_per_file: int = 10000
) -> dict[str, int]:
    """Write cifar10_train_<backend> and cifar10_test_<backend>; returns the number of images in each, by its path.

    RistrettoError(s) if a file is missing or does not have the size of a batch; then nothing is written.
    """
    files = [str(Path(input_folder, name)) for name in (*_TRAIN_FILES, _TEST_FILE)]
    raise_all(fault for file in files if (fault := _fault(file, images_per_file)) is not None)
    train, test = (str(Path(output_folder, f"cifar10_{part}_{backend.value}")) for part in ("train", "test"))
    with ExitStack() as stack:
        # Both are complete before either is renamed.
        train_database = stack.enter_context(new_database(train, backend))
        test_database = stack.enter_context(new_database(test, backend))
        log.info("Writing Training data")
        for number, file in enumerate(files[:-1], start=1):
            log.info("Training Batch %d", number)
            _add(train_database, file, images_per_file)
        log.info("Writing Testing data")
        _add(test_database, files[-1], images_per_file)
    return {train: train_database.count, test: test_database.count}


def _fault(file: str, count: int) -> RistrettoError | None:
    needed = count * (1 + _PIXELS)
    try:
        with open_to_read(file) as stream:
            size = stream.seek(0, os.SEEK_END)
    except RistrettoError as fault:
        return fault
    if size == needed:
        return None
    what = f"the file has {size} bytes; a batch of {count} images has {needed}"
    return RistrettoError(what, where=file, hint="Download the binary version of CIFAR-10, and unpack it.")


def _add(database: NewDatabase, file: str, count: int) -> None:
    """Add a file's images, continuing the numbering."""
    with open_to_read(file) as stream:
        for _ in range(count):
            record = stream.read(1 + _PIXELS)
            if len(record) <= _PIXELS:
                raise RistrettoError("the file was truncated while being read", where=file)
            database.put(b"%05d" % database.count, plain_datum(record[1:], _SHAPE, record[0]))
