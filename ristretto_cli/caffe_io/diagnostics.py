"""Diagnostics of a text file: errors with lines and columns, collected and raised together."""

from __future__ import annotations

import re
from bisect import bisect_right

from ristretto_cli.errors import Location, RistrettoError, raise_all

_MAX_REPORTED = 20
_MAX_ALIKE = 3  # of those, with the same message


class Diagnostics:
    """The errors in a text; the first 20 are reported, 3 of each kind, the others counted."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._errors: list[tuple[int, RistrettoError]] = []
        self._omitted = 0
        self._alike: dict[str, int] = {}
        self._line_starts: list[int] = []

    def report(self, offset: int, what: str, hint: str = "") -> None:
        """Add an error at an offset of the text."""
        if self._alike.get(what, 0) >= _MAX_ALIKE:
            self._alike[what] += 1
            return
        if self.is_full:
            self._omitted += 1
            return
        line = self.line(offset)
        where = Location(self._file, line, offset - self._line_starts[line - 1] + 1)
        self._errors.append((offset, RistrettoError(what, where=where, hint=hint)))
        self._alike[what] = self._alike.get(what, 0) + 1

    @property
    def count(self) -> int:
        """The number of errors so far."""
        return sum(self._alike.values()) + self._omitted

    @property
    def is_full(self) -> bool:
        """Whether further errors are only counted, so that their messages are not needed."""
        return len(self._errors) >= _MAX_REPORTED

    def line(self, offset: int) -> int:
        """The line, from 1, that holds an offset."""
        if not self._line_starts:
            self._line_starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        return bisect_right(self._line_starts, offset)

    def raise_all(self) -> None:
        """Raise the errors, if any, ordered by location."""
        errors = [error for _, error in sorted(self._errors, key=lambda each: each[0])]
        errors += [
            RistrettoError(f"{count - _MAX_ALIKE} more times: {what}", where=self._file)
            for what, count in self._alike.items()
            if count > _MAX_ALIKE
        ]
        if self._omitted:
            errors.append(RistrettoError(f"{self._omitted} more errors", where=self._file))
        raise_all(errors)
