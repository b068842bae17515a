"""Constants of C programs, printed in parts: a large net's weights are never held as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from ristretto_cli.exports.c_plan import bits_of, element_type
from ristretto_cli.ops import AnyArray

_PART = 2**18  # elements that are made text at a time
_COLUMNS = 110
_IN_TABLE = 2**16  # different values up to which their texts are kept in a table


def literal(n: int, kind: str = "int32_t") -> str:
    """An integer as C source, of the width of a type."""
    if bits_of(kind) > 32:
        return f"(-INT64_C({-n}))" if n < 0 else f"INT64_C({n})"
    if n == -(2**31):
        return "(-2147483647 - 1)"  # there are no negative literals, and 2147483648 has a wider type
    return str(n)


def comment(text: str) -> str:
    """Text that cannot end a comment or continue its line."""
    return re.sub(r"[^ -~]|[*\\?]", "_", text)


@dataclass(frozen=True)
class Packed:
    """Weights in rows, several in a byte.

    bits: 1, 2 or 4, two's complement. bytes: of a row; byte k has the elements k, k + bytes, k + 2 * bytes, ..., from
    its lowest bits on.
    """

    bits: int
    bytes: int


def packing_of(rows: AnyArray) -> Packed | None:
    """How weights (N, K) are packed; None if they need more than 4 bits."""
    low, high = int(rows.min(initial=0)), int(rows.max(initial=0))
    for bits in (1, 2, 4):
        if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1):
            return Packed(bits, -(-rows.shape[1] * bits // 8))
    return None


def packed(rows: AnyArray, to: Packed) -> AnyArray:
    """Weights (N, K) as bytes (N, to.bytes)."""
    per_byte = 8 // to.bits
    found = np.zeros((len(rows), to.bytes), np.uint8)
    for j in range(per_byte):
        plane = rows[:, j * to.bytes : (j + 1) * to.bytes].astype(np.int16) & (2**to.bits - 1)
        found[:, : plane.shape[1]] |= (plane << (j * to.bits)).astype(np.uint8)
    return found


@dataclass
class Constants:
    """Writes arrays to weights.c and their declarations to weights.h.

    bytes: of all arrays so far.
    """

    source: IO[bytes]
    header: IO[bytes]
    bytes: int = 0
    names: set[str] = field(default_factory=set)

    def add(self, name: str, array: AnyArray, what: str = "", kind: str = "") -> str:
        """Print an array, and return the type of its elements, the smallest by default. what: for a comment."""
        kind = kind or element_type(int(array.min(initial=0)), int(array.max(initial=0)))
        if name not in self.names:
            self.names.add(name)
            self.bytes += array.size * bits_of(kind) // 8
            if what:
                self.header.write(f"/* {comment(what)} */\n".encode())
            self.header.write(f"extern const {kind} {name}[{array.size}];\n".encode())
            self.source.write(f"\nconst {kind} {name}[{array.size}] = {{\n".encode())
            for part in texts(array, kind):
                self.source.write(part)
            self.source.write(b"};\n")
        return kind


def texts(array: AnyArray, kind: str) -> Iterator[bytes]:
    """The elements of an array as lines of C source, part by part."""
    flat = np.ascontiguousarray(array).reshape(-1)
    low, high = int(flat.min(initial=0)), int(flat.max(initial=0))
    width = max(len(literal(end, kind)) for end in (low, high)) + 2
    per_line = max(1, _COLUMNS // width)
    part = max(1, _PART // per_line) * per_line
    table = None
    if high - low < min(_IN_TABLE, flat.size):
        words = "".join(f"{literal(n, kind)},".rjust(width) for n in range(low, high + 1))
        table = np.frombuffer(words.encode(), np.uint8).reshape(-1, width)
    for start in range(0, flat.size, part):
        numbers = flat[start : start + part]
        if table is None:
            found = [f"{literal(n, kind)}," for n in numbers.tolist()]
            lines = (" ".join(found[i : i + per_line]) for i in range(0, len(found), per_line))
            yield ("\n".join(lines) + "\n").encode()
            continue
        characters = table[numbers.astype(np.int64) - low]
        whole = len(numbers) // per_line * per_line
        rows = characters[:whole].reshape(-1, per_line * width)
        yield np.pad(rows, [(0, 0), (0, 1)], constant_values=ord("\n")).tobytes()
        if whole < len(numbers):
            yield characters[whole:].tobytes() + b"\n"
