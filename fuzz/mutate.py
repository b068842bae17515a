"""Inputs made of other inputs: what a reader meets when a file is damaged, cut off, or made to mislead."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Sequence

_TOKEN = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*|[0-9.eE+-]+|\"[^\"\n]*\"|\s+|.", re.DOTALL)
_NUMBERS = (
    *(b"0", b"1", b"-1", b"2", b"3", b"7", b"16", b"32", b"33", b"255", b"256", b"1000", b"65536", b"1000000"),
    *(b"2147483647", b"-2147483648", b"4294967295", b"9223372036854775807", b"18446744073709551615", b"1e9"),
    *(b"nan", b"inf", b"-inf", b"1e38", b"1e-45", b"0.5", b"-0.0", b"99999999999999999999", b"0x7fffffff", b"00"),
)
_BYTES = tuple(
    packed
    for n in (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
    for packed in (struct.pack("<Q", n)[:size] for size in (1, 2, 4, 8) if n < 256**size)
) + tuple(struct.pack(">I", n) for n in (0, 1, 2**16, 2**24, 2**31 - 1, 2**32 - 1))


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random, *, text: bool) -> bytes:
    """data with one to four changes; text: made of words, else of bytes. others: where pieces may come from."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = _change_words(data, others, rng) if text and rng.random() < 0.9 else _change_bytes(data, others, rng)
    return data


def _change_words(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    words = _TOKEN.findall(data)
    if not words:
        return rng.choice(others)
    at = rng.randrange(len(words))
    kind = rng.randrange(7)
    if kind <= 1:
        numbers = [i for i, word in enumerate(words) if word[:1].isdigit() or word[:1] == b"-"]
        words[rng.choice(numbers) if numbers else at] = rng.choice(_NUMBERS)
    elif kind == 2:
        del words[at : at + rng.choice((1, 1, 2, 8))]
    elif kind == 3:
        piece = words[at : at + rng.choice((1, 2, 8, 40))]
        goal = rng.randrange(len(words) + 1)
        words[goal:goal] = piece
    elif kind == 4:
        other = _TOKEN.findall(rng.choice(others)) or [b" "]
        start = rng.randrange(len(other))
        words[at : at + rng.randrange(3)] = other[start : start + rng.choice((1, 4, 16, 64))]
    elif kind == 5:
        other_at = rng.randrange(len(words))
        words[at], words[other_at] = words[other_at], words[at]
    else:
        # a name for another name: a type, a field, a blob
        names = [i for i, word in enumerate(words) if word[:1].isalpha() or word[:1] == b'"']
        known = [w for w in _TOKEN.findall(rng.choice(others)) if w[:1].isalpha() or w[:1] == b'"']
        if names and known:
            words[rng.choice(names)] = rng.choice(known)
    return b"".join(words)


def _change_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    out = bytearray(data)
    at = rng.randrange(len(out) + 1)
    kind = rng.randrange(6)
    if kind == 0 and at < len(out):
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        value = rng.choice(_BYTES)
        out[at : at + len(value)] = value
    elif kind == 2:
        del out[at : at + rng.choice((1, 4, 64, len(out)))]
    elif kind == 3:
        start = rng.randrange(len(out) + 1)
        out[at:at] = out[start : start + rng.choice((1, 8, 64))]
    elif kind == 4:
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        out[at : at + rng.randrange(9)] = other[start : start + rng.choice((1, 16, 256))]
    else:
        out[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(out)
