"""Binary caffemodels, of the current format and the two older ones: the arrays of each layer."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from ristretto_cli.caffe_io.blobs import StoredBlob, decode_blob, encode_blob
from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.caffe_io.messages import Message, is_repeated, message_class, new
from ristretto_cli.caffe_io.wire_format import BYTES, BadBytes, Field, fields, varint
from ristretto_cli.errors import RistrettoError

_NET_LAYER, _NET_LAYERS = 100, 2
_V1_INNER = 1  # V1LayerParameter.layer: a V0 layer
_NAME = {"V2": 1, "V1": 4, "V0": 1}
_BLOBS = {"V2": 7, "V1": 6, "V0": 50}
_MAX_BYTES = 2**31 - 1
_RELEASE_INTERVAL = 0.01  # seconds
_HINT = "Is it a complete caffemodel?"


def map_file(path: str | Path) -> memoryview:
    """The bytes of a file, memory-mapped. RistrettoError if it cannot be opened."""
    with open_to_read(path) as stream:
        status = os.fstat(stream.fileno())
        if stat.S_ISFIFO(status.st_mode) or status.st_size == 0:
            if not stat.S_ISFIFO(status.st_mode) and not stat.S_ISREG(status.st_mode):
                raise RistrettoError("not a regular file", where=str(path))
            return memoryview(stream.read())
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def release_pages(*arrays: npt.NDArray[Any]) -> None:
    """Release the pages of the mapped files that arrays view, if any; they are read again on access."""
    for file in _mapped(arrays):
        file.madvise(mmap.MADV_DONTNEED)


@contextmanager
def releasing_pages(arrays: Sequence[npt.NDArray[Any]]) -> Iterator[None]:
    """Release the arrays' pages repeatedly during the block, to limit resident memory."""
    files = _mapped(arrays)
    if not files:
        yield
        return
    done = Event()

    def repeat() -> None:
        while not done.wait(_RELEASE_INTERVAL):
            for file in files:
                file.madvise(mmap.MADV_DONTNEED)

    thread = Thread(target=repeat, name="release pages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _mapped(arrays: Sequence[npt.NDArray[Any]]) -> list[mmap.mmap]:
    """The mapped files that arrays view, without duplicates; none if the system cannot release pages."""
    found: dict[int, mmap.mmap] = {}
    if not hasattr(mmap, "MADV_DONTNEED"):
        return []
    for array in arrays:
        base: object = array
        while isinstance(base, np.ndarray):
            base = base.base
        source = base.obj if isinstance(base, memoryview) else base
        if isinstance(source, mmap.mmap):
            found[id(source)] = source
    return list(found.values())


def read_caffemodel(data: memoryview, file: str) -> dict[str, tuple[StoredBlob, ...]]:
    """The arrays of each layer that has some, in file order, by layer name; views into data.

    RistrettoError if data is not a NetParameter, is truncated, or has an inconsistent array.
    """
    if len(data) == 0:
        raise RistrettoError("the file is empty", where=file, hint=_HINT)
    try:
        found = list(fields(data, 0, len(data)))
        layers = [field for field in found if field.number == _NET_LAYER and field.wire_type == BYTES]
        old = [field for field in found if field.number == _NET_LAYERS and field.wire_type == BYTES]
        if not layers and not old:
            raise RistrettoError("the file contains no layers", where=file, hint=_HINT)
        inner = [_inner_layer(data, field) for field in old]
        v0 = [field for field in inner if field is not None]
        if v0:  # fields other than the inner layers are dropped, as in Caffe
            return _read_layers(data, v0, "V0", file)
        if layers and old:
            raise RistrettoError(
                "the file has both `layer` and `layers`, which belong to different formats", where=file, hint=_HINT
            )
        return _read_layers(data, layers or old, "V2" if layers else "V1", file)
    except BadBytes as fault:
        raise RistrettoError(f"the file is damaged or not a caffemodel: {fault}", where=file, hint=_HINT) from None


def read_net_message(data: memoryview, file: str) -> Message:
    """The whole NetParameter in data. RistrettoError if there is none."""
    try:
        message = message_class("NetParameter").FromString(bytes(data))
        _check_strings(message)
    except (DecodeError, UnicodeDecodeError) as fault:
        raise RistrettoError(f"the file is damaged or not a caffemodel: {fault}", where=file, hint=_HINT) from None
    missing = message.FindInitializationErrors()
    if missing:
        raise RistrettoError(f"required fields are missing: {', '.join(missing[:5])}", where=file, hint=_HINT)
    if len(message.layer) + len(message.layers) == 0:
        raise RistrettoError("the file contains no layers", where=file, hint=_HINT)
    return message


def write_caffemodel(
    stream: BinaryIO,
    layers: Mapping[str, Sequence[npt.NDArray[Any]]],
    net: Message | None,
    file: str,
    diffs: Mapping[str, Sequence[npt.NDArray[Any]]] | None = None,
) -> None:
    """Write a NetParameter: the layers of net, if given, then the layers missing in it, all with their arrays.

    diffs: the gradients of all arrays, written too if given. Fields are in the order of their numbers, as protobuf
    writes them.
    """
    if net is not None and net.HasField("name"):
        stream.write(new("NetParameter", name=net.name).SerializeToString())
    total = 0
    for message in _layer_messages(layers, net):
        before, after = _halves(message)
        pieces: list[bytes | memoryview] = [before]
        gradients = diffs[message.name] if diffs is not None and message.name in layers else ()
        for array, diff in zip_longest(layers.get(message.name, ()), gradients):
            blob = encode_blob(np.asarray(array), diff)
            pieces.append(varint(_BLOBS["V2"] << 3 | BYTES) + varint(sum(map(len, blob))))
            pieces.extend(blob)
        pieces.append(after)
        pieces.insert(0, varint(_NET_LAYER << 3 | BYTES) + varint(sum(map(len, pieces))))
        total += sum(map(len, pieces))
        if total > _MAX_BYTES:
            raise RistrettoError(
                "a caffemodel cannot be larger than 2 GiB", where=file, hint="Use a name that ends in .h5."
            )
        stream.writelines(pieces)


def _halves(layer: Message) -> tuple[bytes, bytes]:
    """The parts of a LayerParameter before and after its blobs."""
    before = new("LayerParameter")
    before.CopyFrom(layer)
    after = new("LayerParameter")
    after.CopyFrom(layer)
    for field, _ in layer.ListFields():
        (after if field.number < _BLOBS["V2"] else before).ClearField(field.name)
    return before.SerializeToString(), after.SerializeToString()


def _layer_messages(layers: Mapping[str, Sequence[npt.NDArray[Any]]], net: Message | None) -> Iterator[Message]:
    written = set()
    for layer in net.layer if net is not None else ():
        # Of two layers with one name, one per phase, only the first is written: Caffe would expect the blobs in both.
        if layer.name not in written:
            written.add(layer.name)
            copy = new("LayerParameter")
            copy.CopyFrom(layer)
            copy.ClearField("blobs")
            yield copy
    for name in layers:
        if name not in written:
            yield new("LayerParameter", name=name)


def _check_strings(message: Message) -> None:
    """UnicodeDecodeError for strings that are not UTF-8, which protobuf returns as bytes."""
    for field, value in message.ListFields():
        items = value if is_repeated(field) else (value,)
        if field.message_type is not None:
            if field.message_type.name != "BlobProto":
                for item in items:
                    _check_strings(item)
        elif field.type == field.TYPE_STRING:
            for item in items:
                if isinstance(item, bytes):
                    item.decode("utf-8")


def _inner_layer(data: memoryview, layer: Field) -> Field | None:
    for field in fields(data, layer.start, layer.stop):
        if field.number == _V1_INNER and field.wire_type == BYTES:
            return field
    return None


def _read_layers(
    data: memoryview, layers: Sequence[Field], version: str, file: str
) -> dict[str, tuple[StoredBlob, ...]]:
    found: dict[str, tuple[StoredBlob, ...]] = {}
    for number, layer in enumerate(layers):
        name, blobs = f"number {number}", []
        for field in fields(data, layer.start, layer.stop):
            if field.wire_type != BYTES:
                continue
            if field.number == _NAME[version]:
                name = str(data[field.start : field.stop], "utf-8", "replace")
            elif field.number == _BLOBS[version]:
                blobs.append(field)
        if blobs:
            found.pop(name, None)  # of two layers with one name the last one counts, in its own place
            found[name] = tuple(
                decode_blob(data, blob.start, blob.stop, f'{file}: layer "{name}" blob {index}')
                for index, blob in enumerate(blobs)
            )
    return found
