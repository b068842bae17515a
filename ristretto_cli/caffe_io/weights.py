"""Weight files: binary caffemodels of all three formats, HDF5, and single arrays (mean files)."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.blobs import StoredBlob, decode_blob
from ristretto_cli.caffe_io.caffemodel import (
    map_file,
    read_caffemodel,
    read_net_message,
    release_pages,
    releasing_pages,
    write_caffemodel,
)
from ristretto_cli.caffe_io.files import atomic_write
from ristretto_cli.caffe_io.hdf5 import SIGNATURE, read_hdf5, write_hdf5
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import RistrettoError

__all__ = [
    "StoredBlob",
    "WeightsFile",
    "merged_weights",
    "read_blob",
    "read_net_binary",
    "read_weight_files",
    "read_weights",
    "release_pages",
    "releasing_pages",
    "split_files",
    "write_weights",
]

_LOG = logging.getLogger("ristretto")
_SNIFFED_BYTES = 4096
_WORD = re.compile(rb"[A-Za-z]{4}")
_NOT_IN_TEXT = re.compile(rb"[\0-\x08\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class WeightsFile:
    """The contents of a weight file: the arrays of each layer that has some, in file order, by layer name."""

    file: str
    layers: Mapping[str, tuple[StoredBlob, ...]]


def read_weights(path: str | Path) -> WeightsFile:
    """A caffemodel or its HDF5 form, detected by its content.

    The arrays of a caffemodel are views into the file, which is read on access. RistrettoError if the file cannot be
    read, is damaged, or has an array whose shape and number of values disagree.
    """
    _LOG.debug("Reading the weights in %s", path)
    try:
        data = map_file(path)
    except RistrettoError as error:
        names = list(split_files([str(path)]))
        if len(names) < 2 or not all(Path(name).exists() for name in names):
            raise
        raise RistrettoError(str(error), hint="This command takes a single file of weights.") from None
    if is_hdf5(data):
        return WeightsFile(str(path), read_hdf5(path, data))
    with _reporting_text(data, path, "weights"):
        return WeightsFile(str(path), read_caffemodel(data, str(path)))


def split_files(lists: Sequence[str]) -> Iterator[str]:
    """The names in comma-separated lists of files.

    >>> list(split_files(["a.caffemodel, b.caffemodel", "c.h5"]))
    ['a.caffemodel', 'b.caffemodel', 'c.h5']
    """
    for names in lists:
        yield from (name.strip() for name in names.split(",") if name.strip())


def read_weight_files(names: str) -> WeightsFile:
    """The weights in a file, or in several with commas between their names, merged by merged_weights."""
    files = [names] if Path(names).exists() else list(split_files([names])) or [names]
    return merged_weights([read_weights(file) for file in files])


def merged_weights(files: Sequence[WeightsFile]) -> WeightsFile:
    """Files, at least one, merged into one; of layers in several files, those of the last one are used."""
    if len(files) == 1:
        return files[0]
    layers: dict[str, tuple[StoredBlob, ...]] = {}
    for file in files:
        for name, blobs in file.layers.items():
            layers.pop(name, None)  # it comes where the last file has it, which matters for shared parameters
            layers[name] = blobs
    return WeightsFile(", ".join(file.file for file in files), layers)


def write_weights(
    path: str | Path,
    layers: Mapping[str, Sequence[npt.NDArray[Any]]],
    *,
    net: Message | None = None,
    diffs: Mapping[str, Sequence[npt.NDArray[Any]]] | None = None,
    borrowed: Collection[str] = (),
) -> None:
    """Write arrays, by layer name, atomically as a caffemodel, or as HDF5 if the name ends in .h5.

    net: an upgraded NetParameter, whose name and layers are written too, as in Caffe's snapshots; without it, layers
    have only names and arrays. diffs: the arrays' gradients, written too if given. borrowed: arrays, as `layer/i`, that
    HDF5 omits because another layer owns them.
    """
    with atomic_write(path) as target:
        if str(path).endswith(".h5"):
            write_hdf5(target, layers, net, diffs, borrowed)
        else:
            with target.open("wb") as stream:
                write_caffemodel(stream, layers, net, str(path), diffs)


def read_blob(path: str | Path) -> npt.NDArray[np.float32]:
    """The array in a BlobProto file, such as a mean.binaryproto: float32, with its stored shape."""
    data = map_file(path)
    with _reporting_text(data, path, "an array"):
        return decode_blob(data, 0, len(data), str(path)).array


def read_net_binary(path: str | Path) -> Message:
    """The whole NetParameter in a caffemodel of any format (see caffe_io.upgrade)."""
    data = map_file(path)
    with _reporting_text(data, path, "a caffemodel"):
        return read_net_message(data, str(path))


@contextmanager
def _reporting_text(data: memoryview, path: str | Path, wanted: str) -> Iterator[None]:
    """Replace parse errors of text files by an error that names the kind of text."""
    try:
        yield
    except RistrettoError:
        head = bytes(data[:_SNIFFED_BYTES])
        if _NOT_IN_TEXT.search(head) or not _WORD.search(head):
            raise
        what, hint = _text(head, wanted)
        raise RistrettoError(f"{what}, not {wanted}", where=str(path), hint=hint) from None


def _text(head: bytes, wanted: str) -> tuple[str, str]:
    """The kind of a text file, by its beginning, and a hint."""
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer", "Fetch the file with `git lfs pull`."
    if head.lstrip().startswith(b"<"):
        return "this is a web page", "Download the file itself."
    if wanted == "an array":
        return "this is a text file", "Use a .binaryproto, such as compute_image_mean writes."
    if wanted == "a caffemodel":
        return "this is a text file", "Use upgrade_net_proto_text for a prototxt."
    return "this is a text file, such as a prototxt", "Use the .caffemodel or .h5 with the net's trained weights."


def is_hdf5(data: memoryview) -> bool:
    """Whether these are the bytes of an HDF5 file."""
    # The signature may follow a user block: it is at 0, 512, 1024, 2048, ...
    at = 0
    while at < len(data):
        if data[at : at + len(SIGNATURE)] == SIGNATURE:
            return True
        at = 2 * at or 512
    return False
