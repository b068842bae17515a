"""Diagnostics of one text file: errors are collected, with lines and columns, and raised together."""

from __future__ import annotations

import re
from bisect import bisect_right

from ristretto_cli.errors import Location, RistrettoError, raise_all

_MAX_REPORTED = 20


class Faults:
    """The errors in a text; the first 20 are reported, the others counted."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._told: list[tuple[int, RistrettoError]] = []
        self._untold = 0
        self._line_starts: list[int] = []

    def report(self, offset: int, what: str, hint: str = "") -> None:
        """Add an error at an offset of the text."""
        if self.is_full:
            self._untold += 1
            return
        line = self.line(offset)
        where = Location(self._file, line, offset - self._line_starts[line - 1] + 1)
        self._told.append((offset, RistrettoError(what, where=where, hint=hint)))

    @property
    def count(self) -> int:
        """The number of errors so far."""
        return len(self._told) + self._untold

    @property
    def is_full(self) -> bool:
        """Whether further errors are only counted, so that their messages are not needed."""
        return len(self._told) >= _MAX_REPORTED

    def line(self, offset: int) -> int:
        """The line, from 1, that holds an offset."""
        if not self._line_starts:
            self._line_starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        return bisect_right(self._line_starts, offset)

    def raise_all(self) -> None:
        """Raise the errors, if any, ordered by location."""
        errors = [error for _, error in sorted(self._told, key=lambda fault: fault[0])]
        if self._untold:
            errors.append(RistrettoError(f"{self._untold} more errors", where=self._file))
        raise_all(errors)
