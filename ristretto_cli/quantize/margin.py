"""The error margin: the allowed loss of score against the float net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ristretto_cli.scoring.scores import number

# Scores are means of float32 values: two that differ by less are equal. For a loss this is relative to the baseline,
# because losses come in all magnitudes.
_ROUNDING = 1e-6
_TENFOLD = 1000.0  # percent; beyond that, percent of a tiny baseline is not informative


class Goal(Enum):
    """The direction of better scores; the values are those of --score_goal."""

    MAX = "max"
    MIN = "min"

    @property
    def better(self) -> str:
        """The word for better scores."""
        return "higher" if self is Goal.MAX else "lower"


@dataclass(frozen=True)
class Margin:
    """The allowed distance of a score from the baseline, in the worse direction.

    percent: with Goal.MAX in percentage points (0.01), which suits an accuracy; with Goal.MIN in percent of
    the baseline's magnitude, which suits a loss. exact: compare as the original does, where the last bit of a float
    decides.
    """

    baseline: float
    percent: float
    exact: bool = False
    goal: Goal = Goal.MAX

    def allows(self, score: float) -> bool:
        """Whether a score is good enough; NaN is not."""
        slack = 0.0 if self.exact else _ROUNDING  # DIFFERS(D10)
        if self.goal is Goal.MAX:
            return score + self.percent / 100 + slack >= self.baseline
        return score <= self.baseline + abs(self.baseline) * (self.percent / 100 + slack)

    def missed_by(self, score: float) -> float:
        """The distance of a score from the baseline, in the worse direction, in the unit of `percent`."""
        if self.goal is Goal.MAX:
            return (self.baseline - score) * 100
        if self.baseline == 0:
            return math.inf if score > 0 else 0.0
        return (score - self.baseline) / abs(self.baseline) * 100

    def distance(self, score: float) -> str:
        """The distance of a score from the baseline as a phrase, in the margin's unit where that is informative."""
        if not (math.isfinite(score) and math.isfinite(self.baseline)):
            return "not a finite number."
        worse = self.missed_by(score)
        allowed = number(self.percent)
        percent_of_loss = self.goal is Goal.MIN
        side = "above" if score > self.baseline else "below"
        if percent_of_loss and abs(worse) >= _TENFOLD:
            return (
                f"{number(abs(score - self.baseline))} {side} the baseline, {number(self.baseline)}; "
                f"the margin is {allowed} % of the baseline."
            )
        unit = " %" if percent_of_loss else ""
        if score == self.baseline:
            return f"equal to the baseline; the margin is {allowed}{unit}."
        far = _short(abs(worse), self.percent)
        of_what = " %" if percent_of_loss else f" percentage point{'s' * (far != '1')}"
        return f"{far}{of_what} {side} the baseline; the margin is {allowed}{unit}."


def _short(value: float, margin: float) -> str:
    """A positive value with one decimal; with more where it would round to 0 or to the other side of the margin."""
    for decimals in range(1, 6):
        rounded = round(value, decimals)
        if rounded > 0 and (rounded > margin) == (value > margin):
            return number(rounded)
    return number(value)
