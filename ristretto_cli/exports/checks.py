"""What an export wrote, run on images and compared value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ristretto_cli.integers.program import Program
from ristretto_cli.ops import AnyArray


class NotChecked(Exception):
    """A check that cannot be made here: the reason, such as a tool that is not installed."""


@dataclass
class Comparison:
    """The differences between the integers of what was written, and those of the program.

    places: for each that was compared, the values and those that differ. agreeing: images with the same largest value
    of each output; images: all of them.
    """

    program: Program
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    agreeing: int = 0
    images: int = 0

    def add(self, expected: Mapping[str, AnyArray], found: Mapping[str, AnyArray]) -> None:
        """Compare some images; places that are missing from `found` are not compared."""
        same = True
        for name, array in expected.items():
            if name not in found:
                continue
            differing = int((found[name].reshape(array.shape) != array).sum())
            values, before = self.places.get(name, (0, 0))
            self.places[name] = values + array.size, before + differing
        for place in self.program.outputs.values():
            if place.name in found:
                ours, theirs = (each[place.name].reshape(len(each[place.name]), -1) for each in (expected, found))
                same = np.asarray(same) & (ours.argmax(1) == theirs.argmax(1))
        count = len(next(iter(expected.values())))
        self.agreeing += int(np.broadcast_to(same, (count,)).sum())
        self.images += count

    @property
    def values(self) -> int:
        """The number of values that were compared."""
        return sum(values for values, _ in self.places.values())

    @property
    def differing(self) -> int:
        """The number of values that differ."""
        return sum(differing for _, differing in self.places.values())

    @property
    def first_difference(self) -> str | None:
        """The first place, in the order of the program, with a difference."""
        return next((p.name for p in self.program.places if self.places.get(p.name, (0, 0))[1]), None)

    def line(self) -> str:
        """The result in one line."""
        found = f"{self.images} images, {self.values:,} values of {len(self.places)} blobs: {self.differing:,} differ"
        if self.first_difference is not None:
            found += f", first in {self.first_difference}"
        return f"{found}; the same class for {self.agreeing} of {self.images}"
