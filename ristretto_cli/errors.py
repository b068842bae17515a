"""What can go wrong through no fault of ours.

RistrettoError          one thing a user can mend
├── RistrettoErrors     several of them, found in one go
└── LayerError          one inside a layer, before its name and line are known
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """A place in a file; line and column count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


class RistrettoError(Exception):
    """A fault of the input, told in one line: where, what, what to do."""

    def __init__(self, what: str, *, where: Where | str | None = None, remedy: str = "") -> None:
        line = f"{where}: {what}" if where else what
        if remedy:
            line = f"{line.rstrip('.')}. {remedy}"
        super().__init__(" ".join(line.split()))


class RistrettoErrors(RistrettoError):
    """Several faults; str() gives a line each."""

    def __init__(self, errors: Iterable[RistrettoError]) -> None:
        self.errors = tuple(errors)
        Exception.__init__(self, "\n".join(map(str, self.errors)))


class LayerError(RistrettoError):
    """A fault inside a layer; whoever knows the layer's name and line adds them (see net/build.py)."""


def raise_all(errors: Iterable[RistrettoError]) -> None:
    """Raise what was found: nothing, the one error, or all of them."""
    found = list(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise RistrettoErrors(found)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy that offers the known name nearest to the given one; empty where none is near."""
    candidates = sorted(known)
    folded = {candidate.lower(): candidate for candidate in reversed(candidates)}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f"Did you mean {folded[near[0]]}?" if near else ""
