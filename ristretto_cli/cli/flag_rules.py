"""Constraints between a command's flags, so that no flag is silently ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Rule(Protocol):
    """A constraint between flags. Flags are named as in the help: `--json`."""

    def fault(self, given: Collection[str], values: Mapping[str, Any]) -> str | None:
        """The error in a command line, or None.

        given: the flags that are present and not empty. values: the values of all flags, defaults included.
        """


@dataclass(frozen=True)
class Needs:
    """A flag that has no effect unless another one is given, or, with `value`, has that value."""

    flag: str
    other: str
    value: Any = None

    def fault(self, given: Collection[str], values: Mapping[str, Any]) -> str | None:
        if self.flag not in given:
            return None
        if self.value is None:
            return None if self.other in given else f"{self.flag} has no effect without {self.other}"
        if values[self.other] == self.value:
            return None
        return f"{self.flag} has no effect with {self.other}={values[self.other]}, only with {self.other}={self.value}"


@dataclass(frozen=True)
class Excludes:
    """A flag that has no effect if another one is given. why: replaces the default message."""

    flag: str
    other: str
    why: str = ""

    def fault(self, given: Collection[str], values: Mapping[str, Any]) -> str | None:
        if self.flag not in given or self.other not in given:
            return None
        return self.why or f"{self.flag} has no effect with {self.other}"
