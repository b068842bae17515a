"""Arrays by name in .npz files."""

from __future__ import annotations

import lzma
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from ristretto_cli.errors import RistrettoError
from ristretto_cli.wire.files import atomic_write, open_to_read

# What zipfile, its packers and numpy raise for files that they cannot read.
_FAULTS = (
    *(ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, TokenError),
)


def read_npz(path: str | Path) -> dict[str, npt.NDArray[np.float32]]:
    """The arrays of a .npz file as float32. RistrettoError for a file that is none or holds other than numbers."""
    try:
        # numpy warns of headers in an old style, which say the same.
        with open_to_read(path) as stream, warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            loaded = np.load(stream, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise RistrettoError("this is no .npz file", where=str(path))
            return {name: _numbers(loaded[name]) for name in loaded.files}
    except _FAULTS as fault:
        raise RistrettoError(
            "this is no .npz file of numbers", where=str(path), remedy="Write it with numpy.savez."
        ) from fault


def _numbers(array: npt.NDArray[Any] | bytes) -> npt.NDArray[np.float32]:
    # A member that is no array comes as bytes. Complex numbers would lose a part, and text might look like numbers.
    if isinstance(array, bytes) or array.dtype.kind not in "biuf":
        raise TypeError("this holds no numbers")
    return np.asarray(array, np.float32)


def write_npz(path: str | Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays under any names, whole or not at all."""
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        # np.savez takes names as keyword arguments and so could not take "file".
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
