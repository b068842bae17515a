"""Reading of the pages of an LMDB file, format 1 (LMDB 0.9) as written by 64-bit little-endian machines.

The LMDB library trusts the pages that it maps: it aborts the process, or reads beyond the file, if one is damaged. This
reader checks each page and node that it uses, and reads instead of mapping, so that a file that shrinks does no harm
either. The first two pages of a file are meta pages; the newer one has the root of a B+tree. A page starts with its
number, flags and the bounds of its free space (lower, upper), followed by the offsets of its nodes. A node of a branch
page has a child page, one of a leaf page a key and a value, or the first of the overflow pages that hold the value.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MAGIC = struct.pack("<I", 0xBEEFC0DE)
_VERSION = 1
_PAGE = struct.Struct("<QHHHH")  # number, unused, flags, lower, upper
_OVERFLOW_PAGE = struct.Struct("<QHHI")  # number, unused, flags, count of pages
_META = struct.Struct("<4sIQQ48x48sQQ")  # magic, version, address and size of the map, trees, last page, transaction
_TREE = struct.Struct("<IHHQQQQQ")  # unused, flags, depth, branch, leaf and overflow pages, entries, root
_PAGE_SIZE = struct.Struct("<I")  # stored with the free list
_PAGE_SIZE_AT = _PAGE.size + 24
_NODE = struct.Struct("<HHHH")  # size of the value or number of the child page: low, middle; flags or high; key size
_NUMBER = struct.Struct("<Q")

_BRANCH, _LEAF, _OVERFLOW, _IS_META, _KINDS = 0x01, 0x02, 0x04, 0x08, 0x6F
_BIG, _TREE_OF_ITS_OWN, _DUPLICATES = 0x01, 0x02, 0x04  # flags of nodes
_NO_ROOT = 2**64 - 1
_PAGE_SIZES = [1 << shift for shift in range(8, 17)]
_MAX_DEPTH = 32  # LMDB's limit


class BadLmdb(Exception):
    """The file is not an LMDB that can be read, or a page is damaged; the text says why."""


class _Meta(NamedTuple):
    flags: int
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int


class LmdbFile:
    """The records of the main database of a file, as of when it was opened. BadLmdb if it is none, OSError if it
    cannot be read.

    needed: the bytes that the file must have. size: those that it has.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb", buffering=0)
        try:
            self.size = os.fstat(self._stream.fileno()).st_size
            first = self._read(0, _PAGE.size + _META.size)
            self._page_size = _page_size(first)
            metas = [_meta(first), _meta(self._read(self._page_size, len(first)))]
            self._meta = max(metas, key=lambda meta: meta.transaction)
            self.needed = (self._meta.last_page + 1) * self._page_size
        except BaseException:
            self.close()
            raise

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Each key and value, in the order of the keys. BadLmdb at a page that is damaged, OSError as for open."""
        entries = self._meta.entries
        by_bytes = self._meta.flags == 0  # the flags of a tree give other orders
        count = 0
        last = None
        for number in self._leaves():
            page = self._page(number, _LEAF)
            for offset in _offsets(page, number):
                low, high, flags, key_size = _NODE.unpack_from(page, offset)
                key_start = offset + _NODE.size
                start = key_start + key_size
                length = low | high << 16
                key = page[key_start:start]
                if flags == 0:
                    value = page[start : start + length]
                    beyond = start + length > len(page)
                else:
                    beyond = start + _NUMBER.size > len(page)
                    value = b"" if beyond else self._big_value(key, flags, _NUMBER.unpack_from(page, start)[0], length)
                if beyond:
                    raise BadLmdb(f"page {number} is damaged: a record extends beyond it")
                if by_bytes and last is not None and key <= last:
                    raise BadLmdb(f"page {number} is damaged: its keys are not in order")
                count += 1
                if count > entries:
                    raise BadLmdb(f"it should have {entries} records, but has more")
                last = key
                yield key, value
        if count != entries:
            raise BadLmdb(f"it should have {entries} records, but has {count}")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _leaves(self) -> Iterator[int]:
        """The numbers of the leaf pages, from left to right."""
        if self._meta.root == _NO_ROOT:
            return
        if not 0 < self._meta.depth <= _MAX_DEPTH:
            raise BadLmdb(f"its tree has {self._meta.depth} levels")
        stack = [iter([self._meta.root])]  # the pages that follow, for each level of the tree
        while stack:
            number = next(stack[-1], None)
            if number is None:
                stack.pop()
            elif len(stack) < self._meta.depth:
                stack.append(self._children(number))
            else:
                yield number

    def _children(self, number: int) -> Iterator[int]:
        page = self._page(number, _BRANCH)
        for offset in _offsets(page, number):
            low, middle, high, _ = _NODE.unpack_from(page, offset)
            yield low | middle << 16 | high << 32

    def _big_value(self, key: bytes, flags: int, number: int, length: int) -> bytes:
        """The value of this length in consecutive overflow pages."""
        if flags != _BIG:
            what = {_TREE_OF_ITS_OWN: "is a database of its own", _DUPLICATES: "has several values"}
            known = what.get(flags & ~_BIG, f"has unknown flags, {flags}")
            raise BadLmdb(f"the record {os.fsdecode(key)!a} {known}")
        self._check_number(number)
        data = self._read(number * self._page_size, _OVERFLOW_PAGE.size + length)
        stored, _, kind, pages = _OVERFLOW_PAGE.unpack_from(data)
        fits = number + pages <= self._meta.last_page + 1 and len(data) <= pages * self._page_size
        if stored != number or kind & _KINDS != _OVERFLOW or not fits:
            raise BadLmdb(f"page {number} is damaged: it should begin a value of {length} bytes")
        return data[_OVERFLOW_PAGE.size :]

    def _page(self, number: int, kind: int) -> bytes:
        """A branch or leaf page."""
        self._check_number(number)
        page = self._read(number * self._page_size, self._page_size)
        stored, _, flags, lower, upper = _PAGE.unpack_from(page)
        bounds = _PAGE.size < lower <= upper <= self._page_size and lower % 2 == 0
        if stored != number or flags & _KINDS != kind or not bounds:
            raise BadLmdb(f"page {number} is damaged: it should be a {'leaf' if kind == _LEAF else 'branch'} page")
        return page

    def _check_number(self, number: int) -> None:
        if not 2 <= number <= self._meta.last_page:  # 0 and 1 are meta pages
            raise BadLmdb(f"page {number} is referred to, but the last one is {self._meta.last_page}")

    def _read(self, start: int, length: int) -> bytes:
        found = b""
        while len(found) < length:
            # A read of the system may return less than it was asked for.
            part = os.pread(self._stream.fileno(), length - len(found), start + len(found))
            if not part:
                raise BadLmdb(f"it has fewer than {start + length} bytes")
            found = found + part if found else part
        return found


def _page_size(first: bytes) -> int:
    """The size of pages, from the first page of a file."""
    at = first.find(_MAGIC)
    if at != _PAGE.size:
        if at >= 0 or _MAGIC[::-1] in first:
            raise BadLmdb("it was written by another version of LMDB, or on a 32-bit or big-endian machine")
        raise BadLmdb("it does not begin with the first page of an LMDB")
    (size,) = _PAGE_SIZE.unpack_from(first, _PAGE_SIZE_AT)
    if size not in _PAGE_SIZES:
        raise BadLmdb(f"it has pages of {size} bytes")
    return int(size)


def _meta(page: bytes) -> _Meta:
    """The contents of a meta page."""
    magic, version, _, _, tree, last_page, transaction = _META.unpack_from(page, _PAGE.size)
    if magic != _MAGIC or not _PAGE.unpack_from(page)[2] & _IS_META:
        raise BadLmdb("a meta page is damaged")
    if version != _VERSION:
        raise BadLmdb(f"it has version {version} of the format; version {_VERSION} (LMDB 0.9) is supported")
    _, flags, depth, _, _, _, entries, root = _TREE.unpack(tree)
    return _Meta(flags, depth, entries, root, last_page, transaction)


def _offsets(page: bytes, number: int) -> tuple[int, ...]:
    """The offsets of the nodes of a page, within its used space."""
    _, _, _, lower, upper = _PAGE.unpack_from(page)
    offsets = struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", page, _PAGE.size)
    if min(offsets) < upper or max(offsets) > len(page) - _NODE.size:
        raise BadLmdb(f"page {number} is damaged: a record lies outside of it")
    return offsets
