"""HDF5 weight files in Caffe's layout: data/<layer>/<i>."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.blobs import StoredBlob
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import RistrettoError
from ristretto_cli.libraries import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_INDEX = re.compile(r"0|[1-9][0-9]{0,4}")
_BLOCK = 1 << 22  # bytes by which a file in memory grows
_MAX_NESTED = 32
_MAX_BLOBS = 1000
_MAX_DEFLATE_RATIO = 1100  # the maximum compression of deflate

# h5py raises any of these for damaged files.
HDF5_FAULTS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)


def hdf5_source(path: str | Path, data: memoryview) -> str | BytesIO:
    """What to open as HDF5: the file, or its bytes if it is a pipe, which cannot be read twice. data: see map_file."""
    return str(path) if isinstance(data.obj, mmap.mmap) else BytesIO(data)


def read_hdf5(path: str | Path, data: memoryview) -> dict[str, tuple[StoredBlob, ...]]:
    """The arrays of each layer that has some, by layer name. A layer in nested groups is named a/b.

    data: the bytes of the file, from map_file. RistrettoError if the file is damaged or not a weight file.
    """
    try:
        with h5py.File(hdf5_source(path, data), "r") as file:
            stored = member(file, "data")
            if not isinstance(stored, h5py.Group):
                raise RistrettoError("the file has no group `data`, so no weights", where=str(path))
            return {
                name: _read_layer(datasets, f'{path}: layer "{name}"') for name, datasets in _layers(stored, "", set())
            }
    except HDF5_FAULTS as fault:
        raise RistrettoError(f"the HDF5 file is damaged: {fault}", where=str(path)) from None


def write_hdf5(
    path: str | Path,
    layers: Mapping[str, Sequence[npt.NDArray[Any]]],
    net: Message | None,
    diffs: Mapping[str, Sequence[npt.NDArray[Any]]] | None = None,
    borrowed: Collection[str] = (),
) -> None:
    """Write data/<layer>/<i> as float32 and, as Caffe does, an empty group for each other layer of net.

    diffs: the gradients of all arrays, written to diff/<layer>/<i>. borrowed: arrays, as `layer/i`, that are omitted
    from the data because another layer owns them. RistrettoError for names that HDF5 cannot store, OSError if the file
    cannot be written.
    """
    with create_hdf5(path) as file:
        for group, stored, omitted in (("data", layers, borrowed), ("diff", diffs, ())):
            if stored is None:
                continue
            data = file.create_group(group)
            for layer in net.layer if net is not None else ():
                _write_layer(data, layer.name, {})
            for name, arrays in stored.items():
                written = {i: array for i, array in enumerate(arrays) if f"{name}/{i}" not in omitted}
                _write_layer(data, name, written)


@contextmanager
def create_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """A new HDF5 file, written when the block ends; OSError if that fails.

    It is built in memory, because the library may crash later if the disk is full.
    """
    with h5py.File("in memory", "w", driver="core", backing_store=False, block_size=_BLOCK) as file:
        yield file
        file.flush()
        Path(path).write_bytes(file.id.get_file_image())


def _write_layer(data: h5py.Group, name: str, arrays: Mapping[int, npt.NDArray[Any]]) -> None:
    # "a/b" is group b in group a. Other paths cannot be stored, nor can a layer "a/0" in addition to "a".
    fits = "\0" not in name and not any(part in ("", ".") for part in name.split("/"))
    try:
        group = data.require_group(name) if fits else None
        if group is not None:
            for index, array in arrays.items():
                with np.errstate(all="ignore"):
                    group.create_dataset(str(index), data=np.asarray(array, dtype="<f4"))
            return
    except (ValueError, TypeError):
        pass
    raise RistrettoError(f'layer "{name}" cannot be stored in HDF5 under this name', hint="Write a .caffemodel.")


def declares_too_much(dataset: h5py.Dataset) -> bool:
    """Whether a dataset declares more bytes by its shape than its stored bytes can hold, even compressed."""
    ratio = _MAX_DEFLATE_RATIO if dataset.chunks else 1
    return bool(dataset.nbytes > dataset.id.get_storage_size() * ratio)


def _layers(group: h5py.Group, name: str, visited: set[int]) -> Iterator[tuple[str, dict[int, h5py.Dataset]]]:
    """Each layer's name and its datasets by index; a group that is linked twice is read once, so loops end."""
    address = h5py.h5o.get_info(group.id).addr
    if address in visited or name.count("/") >= _MAX_NESTED:
        return
    visited.add(address)
    children = {key: member(group, key) for key in group}
    datasets = {
        int(key): child for key, child in children.items() if isinstance(child, h5py.Dataset) and _INDEX.fullmatch(key)
    }
    if name and datasets:
        yield name, datasets
    for key, child in children.items():
        if isinstance(child, h5py.Group):
            yield from _layers(child, f"{name}/{key}" if name else key, visited)


def member(group: h5py.Group, key: str) -> Any:
    """The member of a group with this name, or None."""
    # Links into other files and by path are not followed: Caffe writes none.
    return group[key] if isinstance(group.get(key, getlink=True), h5py.HardLink) else None


def _read_layer(datasets: Mapping[int, h5py.Dataset], where: str) -> tuple[StoredBlob, ...]:
    count = max(datasets) + 1
    if count > _MAX_BLOBS:
        raise RistrettoError(f"blob number {count - 1} is out of range", where=where)
    missing = StoredBlob(np.zeros(0, np.float32), stored=False)
    return tuple(
        read_dataset(datasets[index], f"{where} blob {index}") if index in datasets else missing
        for index in range(count)
    )


def read_dataset(dataset: h5py.Dataset, where: str) -> StoredBlob:
    """A numeric dataset as float32; RistrettoError if it is not numeric or is incomplete."""
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise RistrettoError(f"expected numbers, got type {dataset.dtype}", where=where)
    if declares_too_much(dataset):
        raise RistrettoError(f"the shape declares {dataset.nbytes} bytes, but fewer are stored", where=where)
    with np.errstate(all="ignore"):
        array = np.asarray(dataset[()]).astype(np.float32, copy=False)
    array.flags.writeable = False
    return StoredBlob(array)
