"""Conversion of MNIST's idx files to a database, for `ristretto convert_mnist_data`."""

from __future__ import annotations

import logging
import os
import struct
from typing import BinaryIO

from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.datasets.datum import plain_datum
from ristretto_cli.datasets.new_database import Backend, new_database
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import show

log = logging.getLogger("ristretto")

_IMAGES, _LABELS = 2051, 2049  # idx: bytes, with 3 axes and with 1
_GZIP = b"\x1f\x8b"


def convert_mnist(image_file: str, label_file: str, database: str, backend: Backend) -> int:
    """Write a new database of idx images and their labels; returns their number.

    RistrettoError for files that are not such idx files, whose sizes contradict their headers, or that
    do not belong together; then nothing is written.
    """
    with open_to_read(image_file) as images, open_to_read(label_file) as labels:
        count, height, width = _extents(images, image_file, _IMAGES, "image")
        (count_labels,) = _extents(labels, label_file, _LABELS, "label")
        if count != count_labels:
            raise RistrettoError(f"{image_file} has {count} images, but {label_file} has {count_labels} labels")
        if 0 in (count, height, width):
            raise RistrettoError(f"{count} images of {show((height, width))} are empty", where=image_file)
        with new_database(database, backend) as new:
            log.info("A total of %d items.", count)
            log.info("Rows: %d Cols: %d", height, width)
            for at in range(count):
                pixels, label = images.read(height * width), labels.read(1)
                if len(pixels) < height * width or not label:
                    raise RistrettoError(
                        "the file was truncated while being read", where=image_file if label else label_file
                    )
                new.put(b"%08d" % at, plain_datum(pixels, (1, height, width), label[0]))
    log.info("Processed %d files.", count)
    return count


def _extents(stream: BinaryIO, file: str, magic: int, what: str) -> tuple[int, ...]:
    """The extents in an idx file's header, checked against its size; leaves the stream after the header."""
    axes = magic & 0xFF
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    header = stream.read(4 + 4 * axes)
    if header[:2] == _GZIP:
        raise RistrettoError("the file is compressed", where=file, hint="Unpack it first, with gunzip.")
    if len(header) < 4 + 4 * axes or int.from_bytes(header[:4], "big") != magic:
        hint = "The image file comes first, then the label file; both in idx format."
        raise RistrettoError(f"Incorrect {what} file magic", where=file, hint=hint)
    extents = struct.unpack(f">{axes}I", header[4:])
    needed = len(header)
    values = 1
    for extent in extents:
        values *= extent
    needed += values
    if size != needed:
        what = f"its header declares {show(extents)}, which needs {needed} bytes, but the file has {size}"
        raise RistrettoError(what, where=file, hint="Download the file again.")
    return extents
