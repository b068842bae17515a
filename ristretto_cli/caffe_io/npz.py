"""Reading and writing of .npz files: arrays by name."""

from __future__ import annotations

import lzma
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from ristretto_cli.caffe_io.files import atomic_write, open_to_read
from ristretto_cli.errors import RistrettoError

# The exceptions of zipfile, its decompressors and numpy for invalid files.
_FAULTS = (
    *(ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, TokenError),
)

# Characters that a program that unpacks the file might interpret as more than a name: a slash without a folder's name
# before it, dots (and spaces) instead of such a name, a drive letter, backslashes, control characters; and escaped
# ones, so that different names stay different.
_ESCAPED = re.compile(
    r"(?<![^/])/|(?<![^/])(?= *\.)[. ]+(?![^/])|(?<=^[A-Za-z]):|[\\\x00-\x1f\x7f]|%(?=[0-9A-Fa-f]{2})", re.ASCII
)
_MAX_NAME_BYTES = 2**16 - 1  # bytes, in a zip file


def member_name(name: str) -> str:
    """The name inside an .npz file of the array with this name, safe to unpack in the current folder.

    Ordinary names are unchanged. Other characters are escaped as in URLs: `../evil` is `%2E%2E/evil`. RistrettoError
    for names that an .npz file cannot have.
    """
    escaped = _ESCAPED.sub(lambda found: "".join(map(_escape, found.group())), name)
    try:
        too_long = len(f"{escaped}.npy".encode()) > _MAX_NAME_BYTES
    except UnicodeEncodeError:
        raise RistrettoError(f"{name!a} cannot be a name in an .npz file: it is not Unicode") from None
    if too_long:
        raise RistrettoError(f"{name[:50]}... cannot be a name in an .npz file: it is too long")
    return f"{escaped}.npy"


def _escape(character: str) -> str:
    return character if character == " " else f"%{ord(character):02X}"


def _array_name(member: str) -> str:
    """The name of the array in a member, given without .npy: the inverse of member_name."""
    name = unquote(member)
    return name if member_name(name) == f"{member}.npy" else member


def read_npz(path: str | Path) -> dict[str, npt.NDArray[np.float32]]:
    """The arrays of a .npz file as float32. RistrettoError if it is invalid or not numeric."""
    try:
        # numpy warns of headers in an old, equivalent style.
        with open_to_read(path) as stream, warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            loaded = np.load(_seekable(stream), allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise RistrettoError("not an .npz file", where=str(path))
            return {_array_name(name): _numbers(loaded[name]) for name in loaded.files}
    except _FAULTS as fault:
        raise RistrettoError(
            "not an .npz file of numbers", where=str(path), hint="Write it with numpy.savez."
        ) from fault


def read_npy(path: str | Path) -> npt.NDArray[np.float32]:
    """The array of a .npy file as float32. RistrettoError if it is invalid or not numeric."""
    try:
        with open_to_read(path) as stream, warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            loaded = np.load(_seekable(stream), allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                raise RistrettoError("not an .npy file, but an .npz file", where=str(path))
            return _numbers(loaded)
    except _FAULTS as fault:
        hint = "Write it with numpy.save."
        raise RistrettoError("not an .npy file of numbers", where=str(path), hint=hint) from fault


def _seekable(stream: BinaryIO) -> BinaryIO:
    """The stream, or the content of a pipe."""
    return stream if stream.seekable() else BytesIO(stream.read())


def _numbers(array: npt.NDArray[Any] | bytes) -> npt.NDArray[np.float32]:
    # Other members than arrays are bytes. Complex numbers would lose a part, and text might look like numbers.
    if isinstance(array, bytes) or array.dtype.kind not in "biuf":
        raise TypeError("not numeric")
    return np.asarray(array, np.float32)


def write_npz(path: str | Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays under any names, atomically. See member_name for names that are escaped in the file."""
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        # np.savez takes names as keyword arguments, so it cannot write an array "file".
        for name, array in arrays.items():
            with archive.open(member_name(name), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
