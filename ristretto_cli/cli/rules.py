"""Rules about which flags go together, declared with a command, so that no flag is ignored in silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Rule(Protocol):
    """What flags must be given together, or not. Flags are named as in the help: `--json`."""

    def fault(self, given: Collection[str], values: Mapping[str, Any]) -> str | None:
        """What is wrong with a command line, None if nothing is.

        given: the flags that are there with a value that is not empty. values: of all flags, defaults included.
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
    """A flag that has no effect where another one is given. why: the message in place of that."""

    flag: str
    other: str
    why: str = ""

    def fault(self, given: Collection[str], values: Mapping[str, Any]) -> str | None:
        if self.flag not in given or self.other not in given:
            return None
        return self.why or f"{self.flag} has no effect with {self.other}"
