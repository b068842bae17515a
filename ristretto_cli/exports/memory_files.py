"""Integers as the words of a memory: their layout, and the files that simulators and FPGA tools initialize it from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import AnyArray

_BLOCK = 2**20  # values that are written at a time
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class Layout:
    """How rows of integers are laid out in words; a word is a line of a memory file.

    bits, signed: of an integer, in two's complement if it is signed. field: the bits that it takes up, extended by its
    sign or by zeros. per_line: the integers in a word, the first one in the least significant bits. columns: the
    integers of a row. Each row begins a new word, and its last word is filled up with zeros.
    """

    bits: int
    signed: bool
    field: int
    per_line: int
    rows: int
    columns: int

    @property
    def width(self) -> int:
        """The bits of a word."""
        return self.field * self.per_line

    @property
    def row_lines(self) -> int:
        """The words of a row."""
        return -(-self.columns // self.per_line)

    @property
    def lines(self) -> int:
        """The words of all rows."""
        return self.rows * self.row_lines


def layout(bits: int, *, signed: bool, rows: int, columns: int, per_line: int = 1, share: bool, pack: bool) -> Layout:
    """The layout of rows of integers. share: whether a word may hold several of them; pack: see `field_bits`.

    A word has per_line integers. With pack it is a whole number of bytes: as many more integers fill the last one.
    """
    field = bits
    if not share:
        return Layout(bits, signed, -(-bits // 8) * 8 if pack else bits, 1, rows, columns)
    if pack:
        field = field_bits(bits)
        in_a_byte = max(1, 8 // field)
        per_line = -(-per_line // in_a_byte) * in_a_byte
    return Layout(bits, signed, field, per_line, rows, columns)


def field_bits(bits: int) -> int:
    """The bits of a packed integer: 1, 2 or 4, or a whole number of bytes.

    >>> [field_bits(bits) for bits in (1, 2, 3, 4, 5, 8, 9, 17)]
    [1, 2, 4, 4, 8, 8, 16, 24]
    """
    return next((narrow for narrow in (1, 2, 4) if bits <= narrow), -(-bits // 8) * 8)


def hex_words(rows: AnyArray, to: Layout) -> Iterator[AnyArray]:
    """The words of rows (rows, columns) as hexadecimal digits, uint8 (n, digits), some words at a time."""
    digits = -(-to.width // 4)
    per_block = max(1, _BLOCK // max(1, to.row_lines * to.per_line))
    step = max(1, _BLOCK // max(1, to.per_line))  # words of one row
    for start in range(0, to.rows, per_block):
        part = rows[start : start + per_block].astype(np.int64)
        padded = np.zeros((len(part), to.row_lines * to.per_line), np.int64)
        padded[:, : to.columns] = part
        fields = padded.reshape(-1, to.per_line)
        for first in range(0, len(fields), step):
            yield _as_digits(fields[first : first + step], to.field, digits)


def _as_digits(fields: AnyArray, field: int, digits: int) -> AnyArray:
    bits = ((fields[..., None] >> np.arange(field)) & 1).reshape(len(fields), -1)
    padded = np.zeros((len(fields), digits * 4), np.uint8)
    padded[:, : bits.shape[1]] = bits
    nibbles = padded.reshape(len(fields), digits, 4) @ np.array([1, 2, 4, 8], np.uint8)
    return _DIGITS[nibbles[:, ::-1]]


def write_mem(path: Path, rows: AnyArray, to: Layout, comments: Sequence[str]) -> None:
    """A file for $readmemh: a word a line, after comments."""
    with path.open("wb") as stream:
        stream.write("".join(f"// {line}\n" for line in comments).encode())
        for words in hex_words(rows, to):
            stream.write(_lines(words, b"", b"\n"))


def write_coe(path: Path, rows: AnyArray, to: Layout, comments: Sequence[str]) -> None:
    """A file for the memory generators of Xilinx (AMD)."""
    with path.open("wb") as stream:
        stream.write("".join(f"; {line}\n" for line in comments).encode())
        stream.write(b"memory_initialization_radix=16;\nmemory_initialization_vector=\n")
        left = to.lines
        for words in hex_words(rows, to):
            left -= len(words)
            text = _lines(words, b"", b",\n")
            stream.write(text if left else text[:-2] + b";\n")


def write_mif(path: Path, rows: AnyArray, to: Layout, comments: Sequence[str]) -> None:
    """A memory initialization file of Altera (Intel)."""
    with path.open("wb") as stream:
        stream.write("".join(f"-- {line}\n" for line in comments).encode())
        stream.write(f"WIDTH={to.width};\nDEPTH={to.lines};\nADDRESS_RADIX=HEX;\nDATA_RADIX=HEX;\n".encode())
        stream.write(b"CONTENT BEGIN\n")
        address = 0
        width = len(f"{to.lines:x}")
        for words in hex_words(rows, to):
            places = np.arange(address, address + len(words)).reshape(-1, 1)
            numbers = _as_digits(places, 4 * width, width)
            colon = np.broadcast_to(np.frombuffer(b" : ", np.uint8), (len(words), 3))
            stream.write(_lines(np.concatenate([numbers, colon, words], 1), b"  ", b";\n"))
            address += len(words)
        stream.write(b"END;\n")


def _lines(words: AnyArray, before: bytes, after: bytes) -> bytes:
    ends = [np.broadcast_to(np.frombuffer(end, np.uint8), (len(words), len(end))) for end in (before, after)]
    return np.concatenate([ends[0], words, ends[1]], 1).tobytes()


WRITERS: dict[str, Callable[[Path, AnyArray, Layout, Sequence[str]], None]] = {
    ".mem": write_mem,
    ".coe": write_coe,
    ".mif": write_mif,
}


def read_mem(path: Path, of: Layout) -> AnyArray:
    """The integers of a file for $readmemh, int64 (rows, columns). RistrettoError if it does not have this layout."""
    try:
        text = path.read_text(encoding="utf-8")
        words = re.sub(r"//[^\n]*", "", text).split()
        digits = -(-of.width // 4)
        wrong = next((word for word in words if len(word) != digits), None)
        if wrong is not None:
            raise RistrettoError(f"{wrong} does not have {digits} digits", where=str(path))
        if len(words) != of.lines:
            raise RistrettoError(f"has {len(words)} words instead of {of.lines}", where=str(path))
        step = max(1, _BLOCK // max(1, of.per_line))
        parts = [_integers(words[start : start + step], of) for start in range(0, len(words), step)]
    except (OSError, ValueError) as fault:
        raise RistrettoError(f"cannot be read as a memory: {fault}", where=str(path)) from None
    whole = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return np.asarray(whole.reshape(of.rows, of.row_lines * of.per_line)[:, : of.columns])


def _bits(words: Sequence[str], of: Layout) -> AnyArray:
    """The bits of words, the least significant first, uint8 (words, width)."""
    digits = -(-of.width // 4)
    found = bytes.fromhex("".join(word.zfill(digits + digits % 2) for word in words))
    whole = np.frombuffer(found, np.uint8).reshape(len(words), (digits + 1) // 2)
    bits = np.unpackbits(whole[:, ::-1], axis=1, bitorder="little")
    if bits[:, of.width :].any():
        raise ValueError(f"a word is wider than {of.width} bits")
    return bits[:, : of.width]


def _integers(words: Sequence[str], of: Layout) -> AnyArray:
    fields = _bits(words, of).reshape(-1, of.per_line, of.field)
    weights = np.left_shift(np.int64(1), np.arange(of.field, dtype=np.int64))
    if of.signed:
        weights[-1:] = -weights[-1:]  # two's complement
    return np.asarray(fields.astype(np.int64) @ weights)


def checksums(rows: AnyArray) -> tuple[int, int]:
    """The sum of the integers, and the sum of its partial sums, both modulo 2^64; the latter depends on the order."""
    values = rows.astype(np.int64).ravel().view(np.uint64)
    with np.errstate(over="ignore"):
        partial = np.cumsum(values, dtype=np.uint64)
        return int(values.sum(dtype=np.uint64)), int(partial.sum(dtype=np.uint64))
