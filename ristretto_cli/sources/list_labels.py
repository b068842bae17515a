"""Labels in lists of images, read as by Caffe: with atoi, so that anything after an integer is ignored."""

from __future__ import annotations

import logging
import re

log = logging.getLogger("ristretto")

_INTEGER = re.compile(r"[+-]?\d+")
_MAX_DIGITS = 10


class BadLabel(Exception):
    """A word that is no label; the message says why."""


class ListLabels:
    """The labels of a list, and a warning, by `warn`, of those that lose their fraction. file: the list."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lossy: list[tuple[int, str, int]] = []

    def read(self, line: int, word: str) -> int:
        """The label of a line, from 1; BadLabel if the word does not begin with a number, or with too large a one."""
        found = _INTEGER.match(word)
        fraction = _number(word)
        if found is None:
            if fraction is None:
                raise BadLabel("no label after the last space")
            label = 0  # of ".5"
        elif len(found[0].lstrip("+-").lstrip("0")) > _MAX_DIGITS or not -(2**31) <= int(found[0]) < 2**31:
            raise BadLabel(f"the label {word[:40]} does not fit into 32 bits")
        else:
            label = int(found[0])
        if fraction is not None and fraction != label:
            self._lossy.append((line, word, label))
        return label

    def warn(self) -> None:
        """Log a warning if labels lost a fraction."""
        if not self._lossy:
            return
        line, word, label = self._lossy[0]
        more = f" (and {len(self._lossy) - 1} more lines)" if len(self._lossy) > 1 else ""
        log.warning(
            "%s:%d: the label %s becomes %d%s: labels of a list are whole numbers. Use HDF5Data for others.",
            self._file,
            line,
            word,
            label,
            more,
        )


def _number(word: str) -> float | None:
    try:
        return float(word) if "_" not in word else None
    except ValueError:
        return None
