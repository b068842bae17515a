"""Solver states, binary and HDF5, from which Caffe's solvers resume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from ristretto_cli.caffe_io.blobs import StoredBlob, decode_blob, encode_blob
from ristretto_cli.caffe_io.caffemodel import map_file
from ristretto_cli.caffe_io.files import atomic_write
from ristretto_cli.caffe_io.hdf5 import HDF5_FAULTS, create_hdf5, hdf5_source, member, read_dataset
from ristretto_cli.caffe_io.messages import message_class, new
from ristretto_cli.caffe_io.weights import is_hdf5
from ristretto_cli.caffe_io.wire_format import BYTES, BadBytes, Field, fields, varint
from ristretto_cli.errors import RistrettoError
from ristretto_cli.libraries import h5py

_LEARNED_NET, _HISTORY = 2, 3
_MAX_BLOBS = 100_000
_MAX_NAME_BYTES = 1 << 16
_HINT = "Is it a complete .solverstate?"


@dataclass(frozen=True)
class SolverStateFile:
    """The contents of a solverstate file. learned_net: the weights file named there, or ""."""

    file: str
    iteration: int
    current_step: int
    learned_net: str
    history: tuple[StoredBlob, ...]


def read_solver_state(path: str | Path) -> SolverStateFile:
    """The state in a file, whose format is detected by its content.

    Arrays of the binary format are views into the file. RistrettoError if the file cannot be read, is damaged, or is
    not a solver state.
    """
    data = map_file(path)
    found = _read_hdf5(str(path), data) if is_hdf5(data) else _read_binary(data, str(path))
    for what, number in (("iteration", found.iteration), ("step", found.current_step)):
        if number < 0:
            raise RistrettoError(f"invalid {what} {number}", where=str(path), hint=_HINT)
    return found


def write_solver_state(
    path: str | Path, iteration: int, current_step: int, learned_net: str, history: Sequence[npt.NDArray[Any]]
) -> None:
    """Write a solver's state atomically, as HDF5 if the name ends in .h5."""
    with atomic_write(path) as target:
        if str(path).endswith(".h5"):
            _write_hdf5(target, iteration, current_step, learned_net, history)
            return
        with target.open("wb") as stream:
            name = os.fsencode(learned_net)  # may not be UTF-8, which protobuf requires
            stream.write(new("SolverState", iter=iteration).SerializeToString())
            stream.write(varint(_LEARNED_NET << 3 | BYTES) + varint(len(name)) + name)
            for array in history:
                blob = encode_blob(array)
                stream.write(varint(_HISTORY << 3 | BYTES) + varint(sum(map(len, blob))))
                stream.writelines(blob)
            stream.write(new("SolverState", current_step=current_step).SerializeToString())


def _read_binary(data: memoryview, file: str) -> SolverStateFile:
    if len(data) == 0:
        raise RistrettoError("the file is empty", where=file, hint=_HINT)
    small = bytearray()
    name = b""
    blobs: list[Field] = []
    try:
        for field in fields(data, 0, len(data)):
            if field.number == _HISTORY and field.wire_type == BYTES:
                blobs.append(field)
            elif (
                field.number == _LEARNED_NET and field.wire_type == BYTES and field.stop - field.tag <= _MAX_NAME_BYTES
            ):
                name = bytes(data[field.start : field.stop])
            elif field.stop - field.tag <= _MAX_NAME_BYTES:
                small += data[field.tag : field.stop]
        message = message_class("SolverState").FromString(bytes(small))
    except (BadBytes, DecodeError) as fault:
        raise RistrettoError(f"the file is damaged or not a solver state: {fault}", where=file, hint=_HINT) from None
    if not message.HasField("iter"):
        hint = "Use weights as --weights, and the .solverstate from the same snapshot as --snapshot."
        raise RistrettoError("the file is not a solver state", where=file, hint=hint)
    history = (decode_blob(data, blob.start, blob.stop, f"{file}: history {i}") for i, blob in enumerate(blobs))
    return SolverStateFile(file, message.iter, message.current_step, os.fsdecode(name), tuple(history))


def _read_hdf5(file: str, data: memoryview) -> SolverStateFile:
    try:
        with h5py.File(hdf5_source(file, data), "r") as stored:
            if not isinstance(member(stored, "iter"), h5py.Dataset):
                raise RistrettoError("the file is not a solver state: `iter` is missing", where=file, hint=_HINT)
            iteration, step = (_read_int(stored, name, file) for name in ("iter", "current_step"))
            return SolverStateFile(file, iteration, step, _read_string(stored, file), _read_history(stored, file))
    except HDF5_FAULTS as fault:
        raise RistrettoError(f"the HDF5 file is damaged: {fault}", where=file) from None


def _read_int(stored: h5py.File, name: str, file: str) -> int:
    dataset = member(stored, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iu" or dataset.size != 1:
        raise RistrettoError(f"`{name}` is not an integer", where=file, hint=_HINT)
    return int(np.asarray(dataset[()]).item())


def _read_string(stored: h5py.File, file: str) -> str:
    dataset = member(stored, "learned_net")
    if dataset is None:
        return ""
    kind = h5py.check_string_dtype(dataset.dtype) if isinstance(dataset, h5py.Dataset) else None
    if kind is None or dataset.size != 1 or (kind.length or 0) > _MAX_NAME_BYTES:
        raise RistrettoError("`learned_net` is not a file name", where=file, hint=_HINT)
    value = np.asarray(dataset[()]).item()
    return (value if isinstance(value, str) else os.fsdecode(bytes(value))).split("\0")[0]


def _read_history(stored: h5py.File, file: str) -> tuple[StoredBlob, ...]:
    group = member(stored, "history")
    count = len(group) if isinstance(group, h5py.Group) else -1
    if not 0 <= count <= _MAX_BLOBS:
        raise RistrettoError("the file has no history", where=file, hint=_HINT)
    blobs = []
    for index in range(count):
        dataset = member(group, str(index))
        if not isinstance(dataset, h5py.Dataset):
            raise RistrettoError(f"history {index} of {count} is missing", where=file, hint=_HINT)
        blobs.append(read_dataset(dataset, f"{file}: history {index}"))
    return tuple(blobs)


def _write_hdf5(
    path: Path, iteration: int, current_step: int, learned_net: str, history: Sequence[npt.NDArray[Any]]
) -> None:
    with create_hdf5(path) as file:
        file.create_dataset("iter", data=np.array([iteration], "<i4"))
        _write_string(file, "learned_net", learned_net)
        file.create_dataset("current_step", data=np.array([current_step], "<i4"))
        group = file.create_group("history")
        for index, array in enumerate(history):
            group.create_dataset(str(index), data=np.asarray(array, dtype="<f4"))


def _write_string(file: h5py.File, name: str, text: str) -> None:
    # Caffe reads the stored bytes as a C string, so they must end in a zero.
    data = os.fsencode(text) + b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(data))
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_obj_track_times(False)  # as in other datasets, so that equal trainings write equal files
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR), settings)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(data, f"S{len(data)}"), mtype=kind)
