"""Errors caused by user input.

RistrettoError          one error that the user can fix
├── RistrettoErrors     several of them, found in one go
└── LayerError          one inside a layer, before its name and line are known
    └── MissingPath     a path that does not exist
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Location:
    """A location in a file; line and column count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


class RistrettoError(Exception):
    """An error in the input, reported in one line: location, fault, hint."""

    def __init__(self, what: str, *, where: Location | str | None = None, hint: str = "") -> None:
        line = f"{where}: {what}" if where else what
        if hint:
            line = f"{line.rstrip('.')}. {hint}"
        super().__init__(" ".join(line.split()))


class RistrettoErrors(RistrettoError):
    """Several errors; str() gives one line for each."""

    def __init__(self, errors: Iterable[RistrettoError]) -> None:
        self.errors = tuple(errors)
        Exception.__init__(self, "\n".join(map(str, self.errors)))


class LayerError(RistrettoError):
    """An error inside a layer; the caller adds the layer's name and line (see net/build.py)."""


class MissingPath(LayerError):
    """A path in a prototxt that does not exist. what: the setting; path: its value."""

    def __init__(self, what: str, path: str) -> None:
        self.what, self.path = what, path
        hint = "" if Path(path).is_absolute() else "Relative paths start at the current folder."
        super().__init__(f"{what} {path} does not exist", hint=hint)

    def seen_from(self, file: str) -> LayerError:
        """The error with the folder from which the path would exist, if it is one of those above or below.

        file: the prototxt. Tried are its folder, the current one, the folders above both, and those in the current one.
        """
        if Path(self.path).is_absolute():
            return self
        here = Path.cwd()
        own = Path(file).resolve().parent
        try:
            below = sorted(folder for folder in here.iterdir() if folder.is_dir())
        except OSError:
            below = []
        for folder in (own, *own.parents, *here.parents, *below):
            try:
                exists = (folder / self.path).exists()
            except OSError:
                continue
            if exists:
                return LayerError(
                    f"{self.what} {self.path} does not exist",
                    hint=f"It exists in {folder}: run the command there (relative paths start at the current folder).",
                )
        return self


def raise_all(errors: Iterable[RistrettoError]) -> None:
    """Raise the errors: none, the only one, or all of them together."""
    found = list(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise RistrettoErrors(found)


def did_you_mean(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """A hint that suggests the known name nearest to the given one; empty if none has this likeness, from 0 to 1."""
    candidates = sorted(known)
    folded = {candidate.lower(): candidate for candidate in reversed(candidates)}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=likeness)
    return f"Did you mean {folded[near[0]]}?" if near else ""
