"""The search: which widths keep the score within the margin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from ristretto_cli.formats.number_format import LOSSLESS_BITS, Group, Role, TrimmingMode
from ristretto_cli.quantize.plan import Trimmable, Widths, each_family
from ristretto_cli.scoring.score import Scores

# Scores are means of float32 values; two that differ by less are the same. Of a loss, by less of the baseline:
# losses come in all magnitudes.
_ROUNDING = 1e-6


class Goal(Enum):
    """Which scores are better; the value is the word that --score_goal takes."""

    MAX = "max"
    MIN = "min"


@dataclass(frozen=True)
class Trial:
    """One scored net: the width that its group was given, its score, and whether that is within the margin."""

    bits: int
    score: float
    passed: bool
    scores: Scores


@dataclass(frozen=True)
class GroupResult:
    """The trials of one group, widest first, and the width chosen; skipped: no layer is in it."""

    group: Group
    trials: tuple[Trial, ...]
    bits: int
    skipped: bool = False


@dataclass(frozen=True)
class Margin:
    """How much worse than the baseline a score may be.

    percent: with Goal.MAX in percent points, a hundredth each, as suits an accuracy; with Goal.MIN in percent of
    the baseline's magnitude, as suits a loss. exact: compare as the original does, in which the last bit of a
    float decides.
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
        """How much worse than the baseline a score is, in the unit of `percent`."""
        if self.goal is Goal.MAX:
            return (self.baseline - score) * 100
        if self.baseline == 0:
            return math.inf if score > 0 else 0.0
        return (score - self.baseline) / abs(self.baseline) * 100


@dataclass(frozen=True)
class Result:
    """What a search found: the groups' results, the widths chosen, and the net with all of them scored.

    combined is None where the original would not score it.
    """

    groups: tuple[GroupResult, ...]
    widths: Widths
    combined: Trial | None


ScoreWidths = Callable[[str, Widths], tuple[float, Scores]]  # a trial's name and its net's widths to its score


def search(
    mode: TrimmingMode,
    layers: Sequence[Trimmable],
    offered: Sequence[int],
    margin: Margin,
    score: ScoreWidths,
    *,
    legacy: bool,
) -> Result:
    """Search each group of a mode from the widest width down to the first that fails, then combine.

    legacy: groups without layers are searched as well.
    """
    results = []
    for group in mode.groups:
        families = list(each_family(group.families, layers))
        if not families and not legacy:
            results.append(GroupResult(group, (), LOSSLESS_BITS, skipped=True))  # DIFFERS(D8)
            continue
        trials: list[Trial] = []
        for bits in mode.widths(offered, [each.ranges for each in layers]):
            widths = {family: dict.fromkeys(group.roles, bits) for family in families}  # DIFFERS(D4)
            value, scores = score(f"{bits}bit {group.part}", widths)
            trials.append(Trial(bits, value, margin.allows(value), scores))
            if not trials[-1].passed:
                break
        passed = [trial.bits for trial in trials if trial.passed]
        results.append(GroupResult(group, tuple(trials), passed[-1] if passed else mode.fallback_bits))
    widths = _combined(results, layers)
    return Result(tuple(results), widths, _combined_trial(results, widths, margin, score, legacy=legacy))


def _combined(results: Sequence[GroupResult], layers: Sequence[Trimmable]) -> dict[str, dict[Role, int]]:
    widths: dict[str, dict[Role, int]] = {}
    for result in results:
        for family in each_family(result.group.families, layers):
            for role in result.group.roles:
                widths.setdefault(family, {})[role] = result.bits
    return widths


def _combined_trial(
    results: Sequence[GroupResult], widths: Widths, margin: Margin, score: ScoreWidths, *, legacy: bool
) -> Trial | None:
    if len(results) == 1:
        (result,) = results
        for trial in result.trials:
            if trial.bits == result.bits:
                return trial
        if legacy:
            return None  # the original writes a net here that it never scored
    value, scores = score("the combined net", widths)
    return Trial(max((result.bits for result in results), default=LOSSLESS_BITS), value, margin.allows(value), scores)
