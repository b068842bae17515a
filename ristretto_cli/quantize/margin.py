"""The error margin: the allowed loss of score against the float net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ristretto_cli.scoring.scores import number

# Scores are means of float32 values: two that differ by less are equal. For a loss, and for a margin in the score's
# own unit, this is relative to the baseline, because losses come in all magnitudes.
_ROUNDING = 1e-6
_TENFOLD = 1000.0  # percent; beyond that, percent of a tiny baseline is not informative
DEFAULT_MARGIN = 2.0  # percent, or percentage points
DEFAULT_MIN_SQNR = 30.0  # dB


class Goal(Enum):
    """The direction of better scores; the values are those of --score_goal."""

    MAX = "max"
    MIN = "min"

    @property
    def better(self) -> str:
        """The word for better scores."""
        return "higher" if self is Goal.MAX else "lower"


def scored_by(name: str, meaning: str, goal: Goal) -> str:
    """The score that nets are compared by, as a sentence. meaning: what it is, if its name does not say it."""
    return f"Scored by {name}{f', {meaning}' if meaning else ''}: {goal.better} is better."


class Unit(Enum):
    """The unit of a margin; the values are for the log and the JSON."""

    POINTS = "percentage points"
    PERCENT = "percent of the baseline"
    SCORE = "the score's own unit"
    DECIBELS = "dB"


@dataclass(frozen=True)
class Margin:
    """The allowed distance of a score from the baseline, in the worse direction.

    size: in `unit`; by default with Goal.MAX in percentage points (0.01), which suits an accuracy; with Goal.MIN in
    percent of the baseline's magnitude, which suits a loss. exact: compare as the original does, where the last bit of
    a float decides. In Unit.DECIBELS the baseline, the float net against itself, is infinite: size is the lowest
    score then.
    """

    baseline: float
    size: float
    exact: bool = False
    goal: Goal = Goal.MAX
    of_unit: Unit | None = None

    @property
    def unit(self) -> Unit:
        """The unit of `size`."""
        if self.of_unit is not None:
            return self.of_unit
        return Unit.POINTS if self.goal is Goal.MAX else Unit.PERCENT

    def allows(self, score: float) -> bool:
        """Whether a score is good enough; NaN is not."""
        slack = 0.0 if self.exact else _ROUNDING  # DIFFERS(D10)
        if self.unit is Unit.DECIBELS:
            return score >= self.size
        if self.unit is Unit.SCORE:
            return self.missed_by(score) <= self.size + slack * abs(self.baseline)
        if self.unit is Unit.POINTS:
            return score + self.size / 100 + slack >= self.baseline
        return score <= self.baseline + abs(self.baseline) * (self.size / 100 + slack)

    def missed_by(self, score: float) -> float:
        """The distance of a score from the baseline, in the worse direction, in the margin's unit.

        In Unit.DECIBELS the distance from the lowest allowed score.
        """
        if self.unit is Unit.DECIBELS:
            return self.size - score
        worse = self.baseline - score if self.goal is Goal.MAX else score - self.baseline
        if self.unit is Unit.SCORE:
            return worse
        if self.unit is Unit.POINTS:
            return worse * 100
        if self.baseline == 0:
            return math.inf if score > 0 else 0.0
        return worse / abs(self.baseline) * 100

    def description(self) -> str:
        """The margin with its unit, as a sentence."""
        if self.unit is Unit.DECIBELS:
            return f"The score must be at least {number(self.size)} dB."
        if self.unit is Unit.SCORE:
            return f"The error margin is {number(self.size)}, in the unit of the score."
        return f"The error margin is {number(self.size)} {self.unit.value}."

    def verdict(self, name: str, score: float, *, passed: bool) -> str:
        """Whether a score, of an output of this name, is within the margin, and by how much, as a sentence."""
        if self.unit is Unit.DECIBELS:
            reached = "reached" if passed else "missed"
            return f"The lowest allowed score is {reached}: {name} is {_decibels(score)}; the lowest is {self._size()}."
        return f"The error margin is {'kept' if passed else 'missed'}: {name} is {self.distance(score)}"

    def distance(self, score: float) -> str:
        """The distance of a score from the baseline as a phrase, in the margin's unit where that is informative."""
        if not (math.isfinite(score) and math.isfinite(self.baseline)):
            return "not a finite number."
        worse = self.missed_by(score)
        side = "above" if score > self.baseline else "below"
        if self.unit is Unit.PERCENT and abs(worse) >= _TENFOLD:
            return (
                f"{number(abs(score - self.baseline))} {side} the baseline, {number(self.baseline)}; "
                f"the margin is {self._size()} of the baseline."
            )
        if score == self.baseline:
            points = f" percentage point{'s' * (self.size != 1)}" if self.unit is Unit.POINTS else ""
            return f"equal to the baseline; the margin is {self._size()}{points}."
        far = number(abs(worse)) if self.unit is Unit.SCORE else _short(abs(worse), self.size)
        of_what = {
            Unit.POINTS: f" percentage point{'s' * (far != '1')}",
            Unit.PERCENT: " %",
        }.get(self.unit, "")
        return f"{far}{of_what} {side} the baseline; the margin is {self._size()}."

    def _size(self) -> str:
        units = {Unit.PERCENT: " %", Unit.SCORE: " in the score's unit", Unit.DECIBELS: " dB"}
        return f"{number(self.size)}{units.get(self.unit, '')}"


def _decibels(value: float) -> str:
    return "not a number" if math.isnan(value) else f"{number(value)} dB"


def _short(value: float, margin: float) -> str:
    """A positive value with one decimal; with more where it would round to 0 or to the other side of the margin."""
    for decimals in range(1, 6):
        rounded = round(value, decimals)
        if rounded > 0 and (rounded > margin) == (value > margin):
            return number(rounded)
    return number(value)
