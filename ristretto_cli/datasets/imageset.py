"""Conversion of a list of image files to a database, for `ristretto convert_imageset`."""

from __future__ import annotations

import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from ristretto_cli.caffe_io.files import open_to_read, without_mark
from ristretto_cli.datasets.datum import encoded_datum, raw_datum
from ristretto_cli.datasets.new_database import Backend, new_database
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.libraries import cv2
from ristretto_cli.ops import Shape, show
from ristretto_cli.scoring.evaluation import OnBatch, ignore_progress
from ristretto_cli.sources.decoding import decoding_threads
from ristretto_cli.sources.images import (
    COLOR,
    GRAY,
    ONE_LABEL,
    Pixels,
    decode,
    ends_in_number,
    read_image_file,
    resize,
)
from ristretto_cli.sources.list_labels import BadLabel, ListLabels

log = logging.getLogger("ristretto")

_LARGEST_FILE = 2**31 - 1
_MAX_FAULTS = 20  # maximum number reported for one list

T = TypeVar("T")
R = TypeVar("R")


class ListedImage(NamedTuple):
    """A line of the list; at: its number from 0, which begins the record's key."""

    at: int
    name: bytes
    label: int


@dataclass(frozen=True)
class ConversionOptions:
    """Options for converting images to records.

    size: (height, width) to stretch them to. encoded: store files unchanged if possible.
    encode_type: store them in this format ("png"), which implies encoded. check_size: reject images that are
    not of the first one's size.
    """

    gray: bool = False
    size: tuple[int, int] | None = None
    encoded: bool = False
    encode_type: str = ""
    check_size: bool = False


@dataclass(frozen=True)
class Converted:
    """The number of images in the database, and of those that could not be read."""

    records: int
    unreadable: int


class _Converted(NamedTuple):
    """A record, and the shape (H, W, C) of its image."""

    record: bytes
    shape: Shape


def convert_imageset(
    root: str,
    list_file: str,
    database: str,
    backend: Backend,
    options: ConversionOptions,
    *,
    rng: np.random.Generator | None = None,
    on_image: OnBatch = ignore_progress,
) -> Converted:
    """Write a new database of the images in a list, in its order, or in one drawn from rng.

    root is prepended to each name. Unreadable images are logged and skipped, as in Caffe.
    RistrettoError(s) for bad lines, a bad flag, an existing database; then nothing is written.
    """
    _check_format(options.encode_type)
    entries = read_list(list_file)
    if rng is not None:
        log.info("Shuffling data")
        order = rng.permutation(len(entries)).tolist()
        entries = [entries[i]._replace(at=at) for at, i in enumerate(order)]
    log.info("A total of %d images.", len(entries))
    if options.encode_type and not options.encoded:
        log.info("encode_type specified, assuming encoded=true.")
    prefix = os.fsencode(root)
    first: Shape | None = None
    several_labels = False
    files = [os.fsdecode(prefix + entry.name) for entry in entries]
    converted = _map_in_threads(lambda pair: _convert(pair[0], pair[1], options), zip(files, entries, strict=True))
    with new_database(database, backend) as new, closing(converted):
        for done, (file, entry, one) in enumerate(zip(files, entries, converted, strict=True), start=1):
            on_image(done, len(entries), "images")
            if one is None:
                log.error("Could not open or find file %s", file)
                several_labels |= ends_in_number(file)
                continue
            first = one.shape if first is None else first
            if options.check_size and one.shape != first:
                what = f"the image is {show(one.shape)}, but the first one is {show(first)}"
                raise RistrettoError(what, where=file, hint="Set --resize_height and --resize_width.")
            new.put(b"%08d_" % entry.at + entry.name, one.record)
            if new.count % 1000 == 0:
                log.info("Processed %d files.", new.count)
        if new.count == 0:
            hint = f"Should ROOTFOLDER be {root}/? " if root and not root.endswith("/") else ""
            what = f"none of the {len(entries)} images can be read"
            hint = ONE_LABEL if several_labels else f"{hint}ROOTFOLDER is prepended to names unchanged."
            raise RistrettoError(what, where=list_file, hint=hint)
    if new.count % 1000:
        log.info("Processed %d files.", new.count)
    unreadable = len(entries) - new.count
    if unreadable:
        log.warning("%d of %d images could not be read and are skipped.", unreadable, len(entries))
        if several_labels:
            log.warning("%s", ONE_LABEL)
    return Converted(new.count, unreadable)


def read_list(path: str) -> list[ListedImage]:
    """The lines of a list: a name, which may contain spaces, a space and a label. Blank lines are counted but skipped.

    RistrettoErrors with all bad lines; RistrettoError for a list without images.
    """
    with open_to_read(path) as stream:
        lines = without_mark(stream.read(), path).split(b"\n")
    entries: list[ListedImage] = []
    faults: list[RistrettoError] = []
    labels = ListLabels(path)
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        name, _, word = line.rstrip().rpartition(b" ")
        try:
            label = labels.read(at + 1, word.decode("utf-8", "backslashreplace"))
            if not name:
                raise BadLabel("no label after the last space")
            if b"\0" in line:
                raise BadLabel("the name is invalid")
        except BadLabel as fault:
            faults.append(RistrettoError(str(fault), where=f"{path}:{at + 1}", hint="Expected: file label."))
        else:
            entries.append(ListedImage(at, name, label))
    labels.warn()
    if len(faults) > _MAX_FAULTS:
        more = len(faults) - _MAX_FAULTS
        faults[_MAX_FAULTS:] = [RistrettoError(f"and {more} more lines like these", where=path)]
    raise_all(faults)
    if not entries:
        raise RistrettoError("the list contains no images", where=path)
    return entries


def _convert(file: str, entry: ListedImage, options: ConversionOptions) -> _Converted | None:
    """One file's record; None if it is not a readable image."""
    data = _bytes_of(file)
    try:
        image = decode(data, GRAY if options.gray else COLOR, file)
    except RistrettoError:
        return None
    if options.size is not None:
        image = resize(image, *options.size)
    kind = options.encode_type
    if options.encoded and not kind:
        kind = _format_by_name(os.fsdecode(entry.name))
    if not kind:
        return _Converted(raw_datum(image, entry.label), image.shape)
    # As in Caffe, a file that needs no change is stored unchanged: color is kept despite --gray.
    if options.size is not None or not _has_format(file, kind):
        data = _encode(image, kind, file)
    return _Converted(encoded_datum(data, entry.label), image.shape)


def _bytes_of(file: str) -> bytes:
    """A file's content; empty if it cannot be read, or is a pipe or a device, which may have no end."""
    try:
        status = os.stat(file)  # noqa: PTH116 - a name after any prefix
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
            return b""
        return read_image_file(file)
    except (OSError, RistrettoError):
        return b""


def _format_by_name(name: str) -> str:
    """The format by a file's name: its suffix."""
    if "." not in name:
        log.warning("Failed to guess the encoding of '%s'", name)
    return name.rpartition(".")[2].lower()


def _has_format(file: str, kind: str) -> bool:
    given, kind = file.rpartition(".")[2].lower(), kind.lower()
    return given == kind or (kind, given) == ("jpg", "jpeg")


def _encode(image: Pixels, kind: str, where: str) -> bytes:
    try:
        done, data = cv2.imencode(f".{kind}", image)
    except cv2.error:
        done = False
    if not done:
        hint = "Set --encode_type, such as png or jpg."
        raise RistrettoError(f'an image cannot be encoded as "{kind}"', where=where, hint=hint)
    return bytes(data)


def _check_format(kind: str) -> None:
    try:
        known = not kind or cv2.haveImageWriter(f"x.{kind}")
    except cv2.error:
        known = False
    if not known:
        raise RistrettoError(f'--encode_type: images cannot be encoded as "{kind}"', hint="Such as png or jpg.")


def _map_in_threads(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """function of each item, in order, computed in threads slightly ahead of the consumer."""
    threads = decoding_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
