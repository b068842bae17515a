"""Checks of settings shared by data layers: numbers of tops, batch sizes, shapes, paths."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from math import prod
from pathlib import Path

from ristretto_cli.caffe_io.files import without_mark
from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError, MissingPath
from ristretto_cli.ops import Shape, show

log = logging.getLogger("ristretto")

MAX_COUNT = 2**31 - 1  # Caffe counts a blob's elements in an int
MAX_AXES = 32  # Caffe's kMaxBlobAxes

_WORD = re.compile(r"[^ \t\n\v\f\r]+")  # names may contain other Unicode spaces


def check_tops(message: Message, low: int, high: int | None = None) -> None:
    """LayerError for a layer with fewer or more tops than its type has."""
    count = len(message.top)
    if count >= low and (high is None or count <= high):
        return
    wanted = f"{low} or more" if high is None else str(low) if low == high else f"{low} or {high}"
    raise LayerError(f"expected {wanted} top{'s' * (wanted != '1')}, got {count}")


def batch_size_of(param: Message, name: str) -> int:
    """The batch size of a param message, at least 1. name: the message's field in the layer."""
    size = int(param.batch_size)
    if size < 1:
        what = "is 0" if param.HasField("batch_size") else "is not set"
        raise LayerError(f"{name}.batch_size {what}", hint="Set it to 1 or more.")
    return size


def warn_ignored(param: Message, name: str) -> None:
    """Warn of settings of the old V0 format that have no effect in a layer of the current one."""
    for field in ("scale", "mean_file", "crop_size", "mirror"):
        if param.HasField(field):
            log.warning("%s.%s has no effect; set it in transform_param", name, field)


def checked_shape(dims: Iterable[int], what: str) -> Shape:
    """dims as a blob's shape: extents of at least 1, within Caffe's limits of elements and axes."""
    shape = tuple(int(n) for n in dims)
    if any(n < 1 for n in shape):
        raise LayerError(f"{what} has the shape {show(shape)}", hint="Every extent must be 1 or more.")
    if len(shape) > MAX_AXES or prod(shape) > MAX_COUNT:
        raise LayerError(f"{what} has the shape {show(shape)}, which is too large for a blob")
    return shape


def for_top(count: int, tops: int, what: str) -> None:
    """LayerError for a setting that is given neither once nor once per top."""
    if count not in (1, tops):
        raise LayerError(f"{what} is given {count} times for {tops} tops", hint="Set it once, or once per top.")


def existing(path: str, what: str) -> Path:
    """path, which must be an existing file or folder: anything else may have no end."""
    if not path:
        raise LayerError(f"{what} is not set")
    try:
        found = Path(path).exists()
        plain = Path(path).is_file() or Path(path).is_dir()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise LayerError(f"{what} {path!r} is not a valid path ({error})") from None
    if not found:
        raise MissingPath(what, path)
    if not plain:
        raise LayerError(f"{what} {path} is not a regular file", hint="Use a regular file.")
    return Path(path)


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a list file, without line ends. Names in any encoding are preserved."""
    try:
        text = without_mark(path.read_bytes(), path)
    except OSError as error:
        raise LayerError(f"{what} {path} cannot be read: {error.strerror}") from None
    return [line.rstrip(b"\r").decode(errors="surrogateescape") for line in text.split(b"\n")]


def words_of(line: str) -> list[str]:
    """The words of a line, separated as by C++ streams."""
    return _WORD.findall(line)
