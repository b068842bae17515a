"""The search: which widths keep the score within the margin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

    @property
    def better(self) -> str:
        """Which scores are better, in a word."""
        return "higher" if self is Goal.MAX else "lower"


@dataclass(frozen=True)
class Trial:
    """One scored net: the width that its group was given, its score, and whether that is within the margin.

    stopped: the score is of some batches only, the others could not have changed whether it passes.
    """

    bits: int
    score: float
    passed: bool
    scores: Scores
    stopped: bool = False


@dataclass(frozen=True)
class Asked:
    """A net that is to be scored: what it is, and its widths. in_full: over all batches, even if fewer decide."""

    what: str
    widths: Widths
    in_full: bool = False


@dataclass(frozen=True)
class Scored:
    """The score of a net. verdict: whether it is within the margin, where scoring was stopped when that was known."""

    value: float
    scores: Scores
    verdict: bool | None = None


@dataclass(frozen=True)
class GroupResult:
    """The trials of one group, widest first, and the width chosen.

    skipped: no layer is in it. given: the width was asked for, and there are no trials.
    """

    group: Group
    trials: tuple[Trial, ...]
    bits: int
    skipped: bool = False
    given: bool = False


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

    combined is None where the original would not score it, and where nothing is scored.
    """

    groups: tuple[GroupResult, ...]
    widths: Widths
    combined: Trial | None


# What scores a net; beside it, it is told which one follows if this one passes.
ScoreWidths = Callable[[Asked, "Asked | None"], Scored]

_Planned = Sequence[tuple[int, Asked]]  # a group's widths, and the nets that they give


def search(
    mode: TrimmingMode,
    layers: Sequence[Trimmable],
    offered: Sequence[int],
    margin: Margin,
    score: ScoreWidths,
    *,
    legacy: bool,
    given: Mapping[str, int] | None = None,
) -> Result:
    """Search each group of a mode from the widest width down to the first that fails, then combine.

    legacy: groups without layers are searched as well. given: widths of groups that are not searched, by name.
    """
    given = given or {}
    planned = [_planned(mode, group, layers, offered, given, legacy=legacy) for group in mode.groups]
    results: list[GroupResult] = []
    for i, (group, nets) in enumerate(zip(mode.groups, planned, strict=True)):
        if nets is None:
            results.append(GroupResult(group, (), LOSSLESS_BITS, skipped=True))  # DIFFERS(D8)
            continue
        if group.name in given:
            results.append(_given(group, given))
            continue
        trials: list[Trial] = []
        for k, (bits, asked) in enumerate(nets):
            following = next((later[0][1] for later in (nets[k + 1 :], *planned[i + 1 :]) if later), None)
            if following is None and len(mode.groups) > 1:
                later_given = [_given(later, given) for later in mode.groups[i + 1 :] if later.name in given]
                following = _asked_combined([*results, GroupResult(group, (), bits), *later_given], layers)
            trials.append(_trial(bits, score(asked, following), margin))
            if not trials[-1].passed:
                break
        passed = [trial.bits for trial in trials if trial.passed]
        results.append(GroupResult(group, tuple(trials), passed[-1] if passed else mode.fallback_bits))
    combined = _asked_combined(results, layers)
    return Result(tuple(results), combined.widths, _combined_trial(results, combined, margin, score, legacy=legacy))


def searched_groups(
    mode: TrimmingMode, families: frozenset[str], given: Mapping[str, int], *, legacy: bool
) -> list[str]:
    """The names of the groups that have layers but no given width, so that a search needs scores.

    legacy: groups without layers count as well.
    """
    return [
        group.name
        for group in mode.groups
        if group.name not in given and (legacy or not families.isdisjoint(group.families))
    ]


def without_scores(
    mode: TrimmingMode, layers: Sequence[Trimmable], given: Mapping[str, int], *, legacy: bool
) -> Result:
    """The result where the width of every group with layers is given: nothing is searched and nothing scored."""
    results = [
        _given(group, given)
        if legacy or any(each_family(group.families, layers))
        else GroupResult(group, (), LOSSLESS_BITS, skipped=True)
        for group in mode.groups
    ]
    return Result(tuple(results), _combined(results, layers), None)


def _planned(
    mode: TrimmingMode,
    group: Group,
    layers: Sequence[Trimmable],
    offered: Sequence[int],
    given: Mapping[str, int],
    *,
    legacy: bool,
) -> _Planned | None:
    """The nets of a group, widest first; None where it has no layers, unless legacy searches it nevertheless."""
    families = list(each_family(group.families, layers))
    if not families and not legacy:
        return None
    if group.name in given:
        return []
    # Of a single group one net is what others combine, and its score is told as that.
    in_full = len(mode.groups) == 1
    return [
        (
            bits,
            Asked(
                f"{bits}bit {group.part}",
                {family: dict.fromkeys(group.roles, bits) for family in families},  # DIFFERS(D4)
                in_full,
            ),
        )
        for bits in mode.widths(offered, [each.ranges for each in layers])
    ]


def _given(group: Group, given: Mapping[str, int]) -> GroupResult:
    return GroupResult(group, (), given[group.name], given=True)


def _trial(bits: int, scored: Scored, margin: Margin) -> Trial:
    stopped = scored.verdict is not None
    passed = margin.allows(scored.value) if scored.verdict is None else scored.verdict
    return Trial(bits, scored.value, passed, scored.scores, stopped)


def _asked_combined(results: Sequence[GroupResult], layers: Sequence[Trimmable]) -> Asked:
    return Asked("the combined net", _combined(results, layers), in_full=True)


def _combined(results: Sequence[GroupResult], layers: Sequence[Trimmable]) -> dict[str, dict[Role, int]]:
    widths: dict[str, dict[Role, int]] = {}
    for result in results:
        for family in each_family(result.group.families, layers):
            for role in result.group.roles:
                widths.setdefault(family, {})[role] = result.bits
    return widths


def _combined_trial(
    results: Sequence[GroupResult], combined: Asked, margin: Margin, score: ScoreWidths, *, legacy: bool
) -> Trial | None:
    if len(results) == 1:
        (result,) = results
        for trial in result.trials:
            if trial.bits == result.bits:
                return trial
        if legacy and not result.given:
            return None  # the original writes a net here that it never scored
    bits = max((result.bits for result in results), default=LOSSLESS_BITS)
    return _trial(bits, score(combined, None), margin)
