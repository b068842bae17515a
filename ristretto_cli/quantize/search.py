"""The search: candidates for each group of a trimming mode, from the widest down, and then all groups combined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ristretto_cli.formats.number_format import LOSSLESS_BITS, Group, Role, TrimmingMode
from ristretto_cli.quantize.rewrite import Widths
from ristretto_cli.quantize.trimmable import Trimmable, each_family
from ristretto_cli.scoring.score import Scores


@dataclass(frozen=True)
class Candidate:
    """A net that the search may choose: its name in the log, the bits of its group, and the widths of its layers.

    in_full: evaluate it on all batches, even if fewer decide whether it passes.
    """

    name: str
    bits: int
    widths: Widths = field(hash=False)
    in_full: bool = False


Passed = Callable[[Candidate], bool]  # whether a candidate is within the error margin


@dataclass(frozen=True)
class Evaluation:
    """The score of a candidate with so many bits, and whether it is within the margin.

    stopped: the score is that of the first batches only; the others could not have changed whether it passes.
    """

    bits: int
    score: float
    passed: bool
    scores: Scores
    stopped: bool = False


@dataclass(frozen=True)
class SearchGroup:
    """A group of the mode with its candidates, widest first.

    given: its fixed width, if any; then it has no candidates. skipped: no layer is in it.
    """

    group: Group
    candidates: tuple[Candidate, ...] = ()
    given: int | None = None
    skipped: bool = False

    def evaluated(self, passed: Passed) -> Iterator[Candidate]:
        """The candidates up to the first one that fails. Calls `passed` for each only after yielding it."""
        for candidate in self.candidates:
            yield candidate
            if not passed(candidate):
                return


@dataclass(frozen=True)
class SearchSpace:
    """All groups of a mode with their candidates for a net."""

    mode: TrimmingMode
    layers: Sequence[Trimmable]
    groups: tuple[SearchGroup, ...]
    legacy: bool

    def bits(self, group: SearchGroup, passed: Passed) -> int:
        """The width of a group: the given one, or the smallest one that passed."""
        if group.skipped:
            return LOSSLESS_BITS  # DIFFERS(D8)
        if group.given is not None:
            return group.given
        narrow = [candidate.bits for candidate in group.evaluated(passed) if passed(candidate)]
        return narrow[-1] if narrow else self.mode.fallback_bits

    def combined(self, passed: Passed) -> Candidate:
        """The net with the widths of all groups."""
        widths: dict[str, dict[Role, int]] = {}
        chosen = [self.bits(group, passed) for group in self.groups]
        for group, bits in zip(self.groups, chosen, strict=True):
            for family in each_family(group.group.families, self.layers):
                for role in group.group.roles:
                    widths.setdefault(family, {})[role] = bits
        return Candidate("the combined net", max(chosen, default=LOSSLESS_BITS), widths, in_full=True)

    def result(self, passed: Passed) -> Candidate | None:
        """The candidate that is the result: for a mode of one group the one with its width, otherwise the combined net.

        None if the original writes a net that it did not score.
        """
        if len(self.groups) == 1:
            (group,) = self.groups
            bits = self.bits(group, passed)
            for candidate in group.evaluated(passed):
                if candidate.bits == bits:
                    return candidate
            if self.legacy and group.given is None:
                return None
        return self.combined(passed)


def search_space(
    mode: TrimmingMode,
    layers: Sequence[Trimmable],
    offered: Sequence[int],
    given: Mapping[str, int],
    *,
    legacy: bool,
) -> SearchSpace:
    """The candidates for some layers. offered: the widths to try, in bits. given: fixed widths of groups, by name.

    legacy: groups without layers are searched as well.
    """
    widths = mode.widths(offered, [each.ranges for each in layers])
    groups = []
    for group in mode.groups:
        families = list(each_family(group.families, layers))
        if not families and not legacy:
            groups.append(SearchGroup(group, skipped=True))
        elif group.name in given:
            groups.append(SearchGroup(group, given=given[group.name]))
        else:
            candidates = [
                Candidate(
                    f"{bits}bit {group.part}",
                    bits,
                    {family: dict.fromkeys(group.roles, bits) for family in families},  # DIFFERS(D4)
                    in_full=len(mode.groups) == 1,  # its score is that of the result
                )
                for bits in widths
            ]
            groups.append(SearchGroup(group, tuple(candidates)))
    return SearchSpace(mode, layers, tuple(groups), legacy)


def search(space: SearchSpace, passed: Passed) -> Iterator[Candidate]:
    """The candidates to evaluate, one after another; passed is called for those already yielded.

    Each group is searched from the widest candidate down to the first one that fails. The result comes last, unless
    it was a candidate of a group.
    """
    for group in space.groups:
        yield from group.evaluated(passed)
    result = space.result(passed)
    if result is not None and not any(result in group.candidates for group in space.groups):
        yield result


@dataclass(frozen=True)
class GroupResult:
    """The evaluations of one group, widest first, and the chosen width.

    skipped: no layer is in it. given: the width was fixed, and there are no evaluations.
    """

    group: Group
    trials: tuple[Evaluation, ...]
    bits: int
    skipped: bool = False
    given: bool = False


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: each group's, the chosen widths, and the evaluation of the net that has all of them.

    combined is None if the original would not score that net, or if nothing is scored.
    """

    groups: tuple[GroupResult, ...]
    widths: Widths
    combined: Evaluation | None


def search_result(space: SearchSpace, evaluations: Mapping[Candidate, Evaluation]) -> SearchResult:
    """The result of a search from the evaluations of its candidates; none if the width of every group is given."""

    def passed(candidate: Candidate) -> bool:
        return evaluations[candidate].passed

    groups = [
        GroupResult(
            group.group,
            tuple(evaluations[candidate] for candidate in group.evaluated(passed)),
            space.bits(group, passed),
            skipped=group.skipped,
            given=group.given is not None,
        )
        for group in space.groups
    ]
    result = space.result(passed)
    combined = None if result is None else evaluations.get(result)
    return SearchResult(tuple(groups), space.combined(passed).widths, combined)


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
