"""The search: candidates for each group of a trimming mode, from the widest down, then all groups combined.

The errors of the groups add up, so the combined net may miss the margin that each of them met. It is then widened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ristretto_cli.formats.number_format import LOSSLESS_BITS, Role, SearchGroup, TrimmingMode
from ristretto_cli.net.ir import Layer
from ristretto_cli.quantize.pins import Pins, is_pinned
from ristretto_cli.quantize.rewrite import Widths
from ristretto_cli.quantize.trimmable import Trimmable, family_of, is_in
from ristretto_cli.scoring.scores import Scores


@dataclass(frozen=True)
class Candidate:
    """A net that the search may choose: its name in the log, the bits of its group, and the widths of its layers.

    in_full: evaluate it on all batches, even if fewer decide whether it passes. group_bits: the bits of every group,
    if the net combines them.
    """

    name: str
    bits: int
    widths: Widths = field(hash=False)
    in_full: bool = False
    group_bits: tuple[int, ...] = ()


Passed = Callable[[Candidate], bool]  # whether a candidate is within the error margin
MissedBy = Callable[[Candidate], float]  # how much worse than the baseline it is, in any unit


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
class GroupCandidates:
    """A group of the mode with its candidates, widest first.

    finer: the candidates of all possible widths, widest first, if the smallest one is searched. given: its fixed width,
    if any; then it has no candidates. pinned: every layer in it has a fixed width, of which given is the largest.
    skipped: no layer is in it.
    """

    group: SearchGroup
    candidates: tuple[Candidate, ...] = ()
    finer: tuple[Candidate, ...] = ()
    given: int | None = None
    pinned: bool = False
    skipped: bool = False

    def wider(self, bits: int) -> int | None:
        """The next wider candidate's width, up to the widest that was offered; None if there is none."""
        offered = self.finer or self.candidates
        return min((each.bits for each in offered if bits < each.bits <= self.widest), default=None)

    @property
    def widest(self) -> int:
        """The widest width that was offered; 0 if there is none."""
        return max((each.bits for each in self.candidates), default=0)

    def evaluated(self, passed: Passed) -> Iterator[Candidate]:
        """The candidates up to the first one that fails, then those between it and the narrowest one that passed.

        Calls `passed` for each only after yielding it.
        """
        too_narrow, wide_enough = 0, LOSSLESS_BITS
        for candidate in self.candidates:
            yield candidate
            if not passed(candidate):
                too_narrow = candidate.bits
                break
            wide_enough = candidate.bits
        while between := [each for each in self.finer if too_narrow < each.bits < wide_enough]:
            candidate = between[len(between) // 2]
            yield candidate
            if passed(candidate):
                wide_enough = candidate.bits
            else:
                too_narrow = candidate.bits


@dataclass(frozen=True)
class SearchSpace:
    """All groups of a mode with their candidates for a net.

    pins: fixed widths of single layers. hold_margin: widen a combined net that misses the margin.
    """

    mode: TrimmingMode
    layers: Sequence[Trimmable]
    groups: tuple[GroupCandidates, ...]
    legacy: bool
    pins: Pins = field(default_factory=dict)
    hold_margin: bool = True

    def bits(self, group: GroupCandidates, passed: Passed) -> int:
        """The width of a group: the given one, or the smallest one that passed."""
        if group.skipped:
            return LOSSLESS_BITS  # DIFFERS(D8)
        if group.given is not None:
            return group.given
        enough = [candidate.bits for candidate in group.evaluated(passed) if passed(candidate)]
        return min(enough, default=self.mode.fallback_bits)

    def combined(self, passed: Passed) -> Candidate:
        """The net with the width that was found for each group."""
        return self._combination("the combined net", [self.bits(group, passed) for group in self.groups])

    def widened(self, passed: Passed, missed_by: MissedBy) -> Iterator[Candidate]:
        """Combined nets of larger widths, up to the first one that passes; none if the combined net passes.

        One group is widened by a step, the cheapest one first: the one that adds the fewest bits of parameters and, per
        image, of activations. If none of these nets passes, the best of them is widened further. If the smallest widths
        are searched, steps are of one bit, and the net with the widest groups comes first: if it fails, there is
        nothing to find. Asks for each net only after it was yielded.
        """
        base = self.combined(passed)
        if any(group.finer for group in self.groups) and not passed(base):
            limits = zip(self.groups, base.group_bits, strict=True)
            widest = self._widened([max(bits, group.widest) for group, bits in limits])
            if widest.group_bits != base.group_bits:
                yield widest
                if not passed(widest):
                    return
        while not passed(base):
            steps = self._steps(base)
            for step in steps:
                yield step
                if passed(step):
                    return
            if not steps:
                return
            base = min(steps, key=lambda step: _comparable(missed_by(step)))

    def _steps(self, base: Candidate) -> list[Candidate]:
        """The nets with one group a step wider, the cheapest one first."""
        steps = []
        for i, (group, bits) in enumerate(zip(self.groups, base.group_bits, strict=True)):
            wider = group.wider(bits)
            if wider is not None:
                group_bits = [*base.group_bits[:i], wider, *base.group_bits[i + 1 :]]
                steps.append(((wider - bits) * self._values(group.group), self._widened(group_bits)))
        return [candidate for _, candidate in sorted(steps, key=lambda step: step[0])]

    def _widened(self, group_bits: Sequence[int]) -> Candidate:
        parts = zip(self.groups, group_bits, strict=True)
        named = ", ".join(f"{width}bit {each.group.label}" for each, width in parts if not each.skipped)
        return self._combination(f"the combined net with {named}", group_bits)

    def lowest(self, group: GroupCandidates) -> int | None:
        """The smallest width of a pinned group's layers, if they differ."""
        own = [each for each in self.layers if each.family in group.group.families]
        widths = layer_widths(own, [(group.group, LOSSLESS_BITS)], self.pins).values()
        lowest = min(roles[role] for roles in widths for role in group.group.roles)
        return lowest if lowest != group.given else None

    def _values(self, group: SearchGroup) -> int:
        """The number of values in a group whose width is not pinned: parameters, and activations of one image."""
        own_biases = any(Role.BIAS in other.group.roles for other in self.groups)
        found = 0
        for each in self.layers:
            if each.family in group.families:
                layer = each.layer
                for role, shapes in (
                    (Role.PARAMS, [param.shape for param in layer.params[: 1 if own_biases else None]]),
                    (Role.LAYER_IN, [blob.shape[1:] for blob in layer.bottoms[:1]]),
                    (Role.LAYER_OUT, [blob.shape[1:] for blob in layer.tops[:1]]),
                ):
                    if role in group.roles and role not in self.pins.get(layer.name, {}):
                        found += sum(math.prod(max(extent, 1) for extent in shape) for shape in shapes)
        return found

    def _combination(self, name: str, group_bits: Sequence[int]) -> Candidate:
        widths = layer_widths(
            self.layers, [(group.group, bits) for group, bits in zip(self.groups, group_bits, strict=True)], self.pins
        )
        largest = max(group_bits, default=LOSSLESS_BITS)
        return Candidate(name, largest, widths, in_full=True, group_bits=tuple(group_bits))

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


def layer_widths(layers: Sequence[Trimmable], widths: Iterable[tuple[SearchGroup, int]], pins: Pins) -> Widths:
    """The widths of layers where these groups have these bits, and pinned parts their own."""
    found: dict[str, dict[Role, int]] = {}
    for group, bits in widths:
        for each in layers:
            if each.family in group.families:
                own = pins.get(each.layer.name, {})
                roles = found.setdefault(each.layer.name, {})
                roles.update((role, own.get(role, bits)) for role in group.roles)
                if Role.PARAMS in group.roles and Role.BIAS in own:
                    roles[Role.BIAS] = own[Role.BIAS]
    return found


def search_space(
    mode: TrimmingMode,
    layers: Sequence[Trimmable],
    offered: Sequence[int],
    given: Mapping[str, int],
    *,
    legacy: bool,
    pins: Pins | None = None,
    hold_margin: bool = True,
    smallest: bool = False,
) -> SearchSpace:
    """The candidates for some layers. offered: the widths to try, in bits. given: fixed widths of groups, by name.

    legacy: groups without layers are searched as well. pins: fixed widths of single layers. hold_margin: widen a
    combined net that misses the margin. smallest: widths that are not offered are tried as well, to find the smallest.
    """
    pins = pins or {}
    ranges = [each.ranges for each in layers]
    widths = mode.widths(offered, ranges)
    finer = mode.widths(range(1, LOSSLESS_BITS), ranges) if smallest else []
    biases = [
        (group, given[group.name])
        for group in mode.optional_groups
        if group.name in given and group.roles == {Role.BIAS}
    ]
    groups = []
    for group in mode.groups_with(given):
        own = [each for each in layers if each.family in group.families]
        if not legacy and not any(is_in(group, each.family, each.layer) for each in layers):
            groups.append(GroupCandidates(group, skipped=True))
        elif group.name in given:
            groups.append(GroupCandidates(group, given=given[group.name]))
        elif is_pinned(group, [each.layer for each in layers], pins):
            own_widths = layer_widths(own, [(group, LOSSLESS_BITS)], pins).values()
            widest = max(roles[role] for roles in own_widths for role in group.roles)
            groups.append(GroupCandidates(group, given=widest, pinned=True))
        else:
            with_weights = biases if Role.PARAMS in group.roles else []
            candidates = {
                bits: Candidate(
                    f"{bits}bit {group.label}",
                    bits,
                    layer_widths(own, [(group, bits), *with_weights], pins),  # DIFFERS(D4)
                    in_full=len(mode.groups) == 1,  # its score is that of the result
                )
                for bits in (*widths, *finer)
            }
            offers, all_widths = (tuple(candidates[bits] for bits in each) for each in (widths, finer))
            groups.append(GroupCandidates(group, offers, all_widths))
    return SearchSpace(mode, layers, tuple(groups), legacy, pins, hold_margin and not legacy and len(groups) > 1)


def search(space: SearchSpace, passed: Passed, missed_by: MissedBy) -> Iterator[Candidate]:
    """The candidates to evaluate, one after another; passed and missed_by are called for those already yielded.

    Each group is searched from the widest candidate down to the first one that fails, and, for the smallest width,
    between that one and the last one that passed. Then comes the net that combines
    them, unless it was a candidate of a group, and nets with larger widths if it has to be widened.
    """
    for group in space.groups:
        yield from group.evaluated(passed)
    result = space.result(passed)
    if result is not None and not any(result in group.candidates for group in space.groups):
        yield result
    if space.hold_margin:
        yield from space.widened(passed, missed_by)


def _comparable(missed_by: float) -> float:
    """The distance, or infinity for NaN, which has no order."""
    return math.inf if math.isnan(missed_by) else missed_by


@dataclass(frozen=True)
class GroupResult:
    """The evaluations of one group, widest first, and the chosen width.

    skipped: no layer is in it. given: the width was fixed, and there are no evaluations. lowest: the smallest width of
    its layers, if they differ; bits is the largest then.
    """

    group: SearchGroup
    trials: tuple[Evaluation, ...]
    bits: int
    skipped: bool = False
    given: bool = False
    lowest: int | None = None


@dataclass(frozen=True)
class Combination:
    """A net that combines the groups: the bits of each of them, and its evaluation."""

    group_bits: tuple[int, ...]
    evaluation: Evaluation


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: each group's, the chosen widths, and the evaluation of the net that has all of them.

    The bits of groups are those of that net. combined is None if the original would not score that net, or if
    nothing is scored. narrowest: the combined net before it was widened, if it was; widenings: the nets tried then.
    """

    groups: tuple[GroupResult, ...]
    widths: Widths
    combined: Evaluation | None
    narrowest: Combination | None = None
    widenings: tuple[Combination, ...] = ()

    def with_widths(self, widths: Widths, combined: Evaluation, layers: Sequence[Trimmable]) -> SearchResult:
        """The same with the widths and the evaluation of another net, such as one found by layers."""
        groups = []
        for group in self.groups:
            own = [each.layer.name for each in layers if is_in(group.group, each.family, each.layer)]
            bits = {widths[name][role] for name in own for role in group.group.roles}
            lowest, highest = min(bits, default=group.bits), max(bits, default=group.bits)
            groups.append(replace(group, bits=highest, lowest=lowest if lowest < highest else None))
        return replace(self, groups=tuple(groups), widths=widths, combined=combined)


def search_result(space: SearchSpace, evaluations: Mapping[Candidate, Evaluation], missed_by: MissedBy) -> SearchResult:
    """The result of a search from the evaluations of its candidates; none if the width of every group is given.

    Of combined nets that all miss the margin it is the one that misses it by the smallest distance.
    """

    def passed(candidate: Candidate) -> bool:
        return evaluations[candidate].passed

    result, combined = space.result(passed), space.combined(passed)
    widened = []
    if space.hold_margin and combined in evaluations:
        widened = list(space.widened(passed, missed_by))
        tried = [combined, *widened]
        enough = [each for each in tried if passed(each)]
        # Steps end with the first net that passes. Of equal ones the first, which is the narrowest.
        result = enough[-1] if enough else min(tried, key=lambda each: _comparable(missed_by(each)))
    chosen = result if result is not None and result.group_bits else combined
    groups = [
        GroupResult(
            group.group,
            tuple(
                sorted((evaluations[candidate] for candidate in group.evaluated(passed)), key=lambda each: -each.bits)
            ),
            bits,
            skipped=group.skipped,
            given=group.given is not None,
            lowest=space.lowest(group) if group.pinned else None,
        )
        for group, bits in zip(space.groups, chosen.group_bits, strict=True)
    ]
    return SearchResult(
        tuple(groups),
        chosen.widths,
        None if result is None else evaluations.get(result),
        Combination(combined.group_bits, evaluations[combined]) if widened else None,
        tuple(Combination(each.group_bits, evaluations[each]) for each in widened),
    )


def searched_groups(
    mode: TrimmingMode, layers: Sequence[Layer], given: Mapping[str, int], pins: Pins, *, legacy: bool
) -> list[str]:
    """The names of the groups that have layers without a given width, so that a search needs scores.

    legacy: groups without layers count as well.
    """
    return [
        group.name
        for group in mode.groups
        if group.name not in given
        and (legacy or any(family_of(layer) in group.families for layer in layers))
        and not is_pinned(group, layers, pins)
    ]
