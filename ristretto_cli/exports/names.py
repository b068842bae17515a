"""File names and identifiers for layers and blobs, whose names may be anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

_MAX_LENGTH = 80
_WINDOWS = frozenset({"con", "prn", "aux", "nul", *(f"{p}{i}" for p in ("com", "lpt") for i in range(1, 10))})


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """A file name without suffix for each name: letters, digits, - and _; different even if case is ignored.

    >>> file_stems(["conv1", "../x", "conv2_1/x", "Conv1"])
    {'conv1': 'conv1', '../x': 'x', 'conv2_1/x': 'conv2_1_x', 'Conv1': 'Conv1_2'}
    """
    return _unique(names, lambda name: re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "layer", _WINDOWS)


def identifiers(names: Iterable[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """A C or Verilog identifier for each name; none is reserved (whose names are in lower case).

    >>> identifiers(["3x3", "int", "a b"], reserved={"int"})
    {'3x3': 'n_3x3', 'int': 'int_2', 'a b': 'a_b'}
    """

    def plain(name: str) -> str:
        found = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "n"
        return f"n_{found}" if found[0].isdigit() else found

    return _unique(names, plain, frozenset(reserved))


def _unique(names: Iterable[str], plain: Callable[[str], str], taken: Collection[str]) -> dict[str, str]:
    used = set(taken)
    found: dict[str, str] = {}
    for name in names:
        if name in found:
            continue
        stem = unique = plain(name)[:_MAX_LENGTH].rstrip("_-")
        number = 1
        while unique.lower() in used:
            number += 1
            unique = f"{stem}_{number}"
        used.add(unique.lower())
        found[name] = unique
    return found
