"""The search over widths, on scores that are made up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ristretto_cli.caffe_io.messages import TEST, new
from ristretto_cli.formats.number_format import MODES, Ranges, Role
from ristretto_cli.net.ir import Blob, Layer, Param
from ristretto_cli.quantize.margin import Margin
from ristretto_cli.quantize.rewrite import Widths
from ristretto_cli.quantize.search import (
    Candidate,
    Evaluation,
    SearchResult,
    search,
    search_result,
    search_space,
)
from ristretto_cli.quantize.trimmable import Trimmable
from ristretto_cli.scoring.scores import Scores

OFFERED = (16, 8, 4, 2, 1)
NO_SCORES = Scores((), 0.0, 1)
ACTIVATIONS = (Role.LAYER_IN, Role.LAYER_OUT)


def layer(family: str, largest: float = 1.0, blobs: Sequence[Blob] = (), params: Sequence[Param] = ()) -> Trimmable:
    kind = {"CONV": "Convolution", "FC": "InnerProduct"}[family]
    made = Layer(family.lower(), kind, TEST, new("LayerParameter"), tuple(blobs), tuple(blobs), tuple(params))
    return Trimmable(made, family, Ranges(largest, largest, largest))


class Net:
    """A net whose scores are those of a table, 0.9 where a trial is not in it; it records the calls."""

    def __init__(self, scores: Mapping[str, float], verdicts: Mapping[str, bool] | None = None) -> None:
        self._scores = scores
        self._verdicts = verdicts or {}
        self.in_full: set[str] = set()
        self.names: list[str] = []
        self.widths: dict[str, Widths] = {}

    def evaluate(self, candidate: Candidate, margin: Margin) -> Evaluation:
        name = candidate.name
        self.names.append(name)
        self.widths[name] = candidate.widths
        self.in_full |= {name} if candidate.in_full else set()
        score = self._scores.get(name, 0.9)
        passed = self._verdicts.get(name, margin.allows(score))
        return Evaluation(candidate.bits, score, passed, NO_SCORES, stopped=name in self._verdicts)


def run(
    net: Net,
    *families: str,
    mode: str = "dynamic_fixed_point",
    legacy: bool = False,
    offered: tuple[int, ...] = OFFERED,
    largest: float = 1.0,
    given: Mapping[str, int] | None = None,
    hold_margin: bool = True,
    smallest: bool = False,
    layers: Sequence[Trimmable] = (),
) -> SearchResult:
    layers = layers or [layer(family, largest) for family in families]
    margin = Margin(0.9, 2.0, exact=legacy)
    space = search_space(
        MODES.get(mode), layers, offered, given or {}, legacy=legacy, hold_margin=hold_margin, smallest=smallest
    )
    evaluations: dict[Candidate, Evaluation] = {}

    def missed_by(candidate: Candidate) -> float:
        return margin.missed_by(evaluations[candidate].score)

    for candidate in search(space, lambda candidate: evaluations[candidate].passed, missed_by):
        evaluations[candidate] = net.evaluate(candidate, margin)
    return search_result(space, evaluations, missed_by)


def bits(result: SearchResult) -> list[int]:
    return [group.bits for group in result.groups]


FAILING = {"4bit CONV weights": 0.5, "2bit FC weights": 0.5, "8bit layer activations": 0.5}


def test_each_group_stops_at_the_first_width_that_fails() -> None:
    net = Net(FAILING)
    run(net, "CONV", "FC")
    assert net.names == [
        "16bit CONV weights",
        "8bit CONV weights",
        "4bit CONV weights",
        "16bit FC weights",
        "8bit FC weights",
        "4bit FC weights",
        "2bit FC weights",
        "16bit layer activations",
        "8bit layer activations",
        "the combined net",
    ]


def test_the_smallest_width_that_passed_is_chosen_and_combined() -> None:
    net = Net({**FAILING, "the combined net": 0.885})
    result = run(net, "CONV", "FC")
    assert bits(result) == [8, 4, 16]
    assert result.widths == {
        "conv": {Role.PARAMS: 8, Role.LAYER_IN: 16, Role.LAYER_OUT: 16},
        "fc": {Role.PARAMS: 4, Role.LAYER_IN: 16, Role.LAYER_OUT: 16},
    }
    assert net.widths["the combined net"] == result.widths
    assert result.combined is not None
    assert (result.combined.score, result.combined.passed) == (0.885, True)


def test_a_width_after_a_failing_one_is_not_tried_even_if_it_would_pass() -> None:
    net = Net({"8bit CONV weights": 0.1, "4bit CONV weights": 0.9})
    assert bits(run(net, "CONV", "FC"))[0] == 16
    assert "4bit CONV weights" not in net.names


def test_every_trial_is_kept_the_failing_one_too() -> None:
    trials = run(Net(FAILING), "CONV", "FC").groups[0].trials
    assert [(t.bits, t.score, t.passed) for t in trials] == [(16, 0.9, True), (8, 0.9, True), (4, 0.5, False)]


def test_where_all_pass_the_smallest_width_is_chosen() -> None:
    assert bits(run(Net({}), "CONV", "FC")) == [1, 1, 1]


def test_where_none_passes_32_bits_are_chosen() -> None:
    assert bits(run(Net({"16bit CONV weights": 0.1}), "CONV", "FC")) == [32, 1, 1]


def test_widths_are_tried_from_the_widest_down_in_whatever_order_they_are_offered() -> None:
    net = Net({})
    run(net, "CONV", "FC", offered=(3, 12, 6))
    assert net.names[:3] == ["12bit CONV weights", "6bit CONV weights", "3bit CONV weights"]


def test_a_combined_net_that_misses_the_margin_is_reported_as_such() -> None:
    combined = run(Net({"the combined net": 0.5}), "CONV", "FC", hold_margin=False).combined
    assert combined is not None
    assert (combined.score, combined.passed) == (0.5, False)


# --- what a trial quantizes


@pytest.mark.parametrize("legacy", [False, True])
def test_a_trial_has_widths_only_for_the_searched_group(legacy: bool) -> None:
    net = Net({})
    run(net, "CONV", "FC", legacy=legacy)
    assert net.widths["8bit CONV weights"] == {"conv": {Role.PARAMS: 8}}
    assert net.widths["8bit layer activations"] == {name: dict.fromkeys(ACTIVATIONS, 8) for name in ("conv", "fc")}


# --- groups without layers


def test_a_group_without_layers_is_skipped() -> None:
    net = Net({})
    result = run(net, "CONV")
    assert not [name for name in net.names if "FC" in name]
    assert [group.skipped for group in result.groups] == [False, True, False]
    assert result.groups[1].trials == ()
    assert result.widths == {"conv": {Role.PARAMS: 1, Role.LAYER_IN: 1, Role.LAYER_OUT: 1}}


def test_the_original_scores_the_float_net_five_times_for_it() -> None:
    net = Net({})
    result = run(net, "CONV", legacy=True)
    assert [name for name in net.names if "FC" in name] == [f"{n}bit FC weights" for n in OFFERED]
    assert net.widths["1bit FC weights"] == {}
    assert bits(result)[1] == 1


# --- widths that are given


@pytest.mark.parametrize("legacy", [False, True])
def test_where_all_widths_are_given_only_the_combined_net_is_scored(legacy: bool) -> None:
    net = Net({"the combined net": 0.1})
    result = run(net, "CONV", "FC", legacy=legacy, given={"conv_params": 3, "fc_params": 2, "layer": 5})
    assert net.names == ["the combined net"]
    assert bits(result) == [3, 2, 5]
    assert [(group.given, group.trials) for group in result.groups] == [(True, ())] * 3
    assert result.widths["fc"] == {Role.PARAMS: 2, Role.LAYER_IN: 5, Role.LAYER_OUT: 5}
    assert result.combined is not None
    assert not result.combined.passed


def test_the_other_groups_are_searched_and_the_combined_net_has_all_that_is_given() -> None:
    net = Net({"8bit FC weights": 0.1})
    result = run(net, "CONV", "FC", given={"conv_params": 3, "layer": 5})
    assert net.names == ["16bit FC weights", "8bit FC weights", "the combined net"]
    assert bits(result) == [3, 16, 5]


def test_a_width_of_layers_that_the_net_has_not_is_passed_over() -> None:
    result = run(Net({}), "CONV", given={"fc_params": 3})
    assert (result.groups[1].skipped, result.groups[1].given) == (True, False)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_width_of_a_whole_net_is_scored_as_the_net_that_is_written(legacy: bool) -> None:
    net = Net({})
    result = run(net, "CONV", mode="minifloat", legacy=legacy, given={"net": 9})
    assert net.names == ["the combined net"]
    assert result.widths == {"conv": dict.fromkeys(Role, 9)}
    assert result.combined is not None


# --- modes of one group


def test_minifloat_tries_widths_that_leave_a_bit_of_mantissa_and_scores_no_combined_net() -> None:
    net = Net({"8bit minifloat net": 0.885})
    result = run(net, "CONV", "FC", mode="minifloat")
    assert net.names == ["16bit minifloat net", "8bit minifloat net"]
    assert bits(result) == [8]
    assert result.combined is result.groups[0].trials[1]


def test_minifloat_of_large_values_has_more_exponent_bits_and_so_fewer_widths() -> None:
    net = Net({})
    run(net, "CONV", mode="minifloat", largest=2.0**70, offered=(16, 9, 8))  # 8 bits of exponent
    assert net.names == ["16bit minifloat net"] * 1


def test_minifloat_where_none_passes_scores_the_32_bit_net_that_is_written() -> None:
    net = Net({"16bit minifloat net": 0.1, "the combined net": 0.9})
    result = run(net, "CONV", mode="minifloat")
    assert net.names == ["16bit minifloat net", "the combined net"]
    assert result.widths == {"conv": dict.fromkeys(Role, 32)}
    assert result.combined is not None
    assert (result.combined.bits, result.combined.score, result.combined.passed) == (32, 0.9, True)


def test_the_original_writes_it_unscored() -> None:
    net = Net({"16bit minifloat net": 0.1})
    result = run(net, "CONV", mode="minifloat", legacy=True)
    assert net.names == ["16bit minifloat net"]
    assert result.widths == {"conv": dict.fromkeys(Role, 32)}
    assert result.combined is None


@pytest.mark.parametrize("score", [0.9, 0.1])
def test_power_of_two_weights_have_one_width_whatever_it_scores(score: float) -> None:
    net = Net({"4bit quantized net": score})
    result = run(net, "CONV", "FC", mode="integer_power_of_2_weights", offered=(16, 8))
    assert net.names == ["4bit quantized net"]
    assert bits(result) == [4]
    assert result.combined is result.groups[0].trials[0]
    assert result.combined.passed == (score == 0.9)


# --- the margin


@pytest.mark.parametrize(
    ("score", "allowed"), [(0.90, True), (0.9000001, True), (0.8999, False), (0.95, True), (math.nan, False)]
)
def test_a_score_may_be_the_margin_below_the_baseline_and_no_more(score: float, allowed: bool) -> None:
    assert Margin(0.92, 2.0).allows(score) is allowed


def test_exact_leaves_a_score_right_on_the_margin_to_the_last_bit_of_a_float() -> None:
    # 0.88 + 0.02 is 0.9 in doubles, but 0.7 + 0.1 is less than 0.8.
    assert Margin(0.9, 2.0, exact=True).allows(0.88)
    assert not Margin(0.8, 10.0, exact=True).allows(0.7)
    assert Margin(0.8, 10.0).allows(0.7)


def test_a_margin_of_zero_allows_the_baseline_itself() -> None:
    assert Margin(0.9, 0.0).allows(0.9)
    assert not Margin(0.9, 0.0).allows(0.8999)


def test_a_baseline_that_is_no_number_allows_nothing() -> None:
    assert not Margin(math.nan, 100.0).allows(1.0)


def test_every_mode_has_a_name_for_each_of_its_trials() -> None:
    parts: dict[str, Any] = {name: [g.label for g in MODES.get(name).groups] for name in MODES.names()}
    assert parts["minifloat"] == ["minifloat net"]
    assert parts["dynamic_fixed_point"] == ["CONV weights", "FC weights", "layer activations"]
    assert parts["integer_power_of_2_weights"] == ["quantized net"]


# --- verdicts that come early


def test_a_search_where_all_pass_lists_its_candidates_without_evaluations() -> None:
    space = search_space(MODES.get("dynamic_fixed_point"), [layer("CONV")], (8, 4), {}, legacy=False)
    assert [candidate.name for candidate in search(space, lambda candidate: True, lambda candidate: 0.0)] == [
        "8bit CONV weights",
        "4bit CONV weights",
        "8bit layer activations",
        "4bit layer activations",
        "the combined net",
    ]


def test_an_early_decision_counts_not_the_score_so_far() -> None:
    net = Net(
        {"16bit CONV weights": 0.1, "8bit CONV weights": 0.9}, {"16bit CONV weights": True, "8bit CONV weights": False}
    )
    first, second = run(net, "CONV").groups[0].trials
    assert (first.score, first.passed, first.stopped) == (0.1, True, True)
    assert (second.score, second.passed, second.stopped) == (0.9, False, True)


def test_only_nets_that_are_no_result_may_be_stopped() -> None:
    net = Net({})
    run(net, "CONV", "FC", offered=(8,))
    assert net.in_full == {"the combined net"}
    single = Net({})
    run(single, "CONV", mode="minifloat", offered=(16, 8))
    assert single.in_full == set(single.names)


# --- a combined net that misses the margin


def sized(family: str, parameters: int, activations: int) -> Trimmable:
    """A layer with so many parameters, and so many activations of each of two images on either side."""
    param = Param(family, 0, (parameters,), new("FillerParameter"))
    return layer(family, blobs=[Blob("blob", (2, activations), 0)], params=[param])


def combined(conv: int, fc: int, activations: int) -> str:
    return f"the combined net with {conv}bit CONV weights, {fc}bit FC weights, {activations}bit layer activations"


SIZED = (sized("CONV", 100, 60), sized("FC", 1000, 10))
NARROW = {"4bit CONV weights": 0.5, "4bit FC weights": 0.5, "4bit layer activations": 0.5, "the combined net": 0.7}


def test_a_combined_net_that_misses_the_margin_is_widened_where_that_adds_the_fewest_bits() -> None:
    net = Net({**NARROW, combined(16, 8, 8): 0.8, combined(8, 8, 16): 0.89})
    result = run(net, layers=SIZED)
    assert net.names[-3:] == ["the combined net", combined(16, 8, 8), combined(8, 8, 16)]
    assert bits(result) == [8, 8, 16]
    assert net.in_full == set(net.names[-3:])
    assert result.widths == net.widths[combined(8, 8, 16)]
    assert result.combined is not None
    assert (result.combined.score, result.combined.passed) == (0.89, True)
    assert result.narrowest is not None
    assert (result.narrowest.group_bits, result.narrowest.evaluation.score) == ((8, 8, 8), 0.7)
    assert [(each.group_bits, each.evaluation.passed) for each in result.widenings] == [
        ((16, 8, 8), False),
        ((8, 8, 16), True),
    ]


def test_where_one_step_does_not_hold_the_margin_the_best_net_is_widened_further() -> None:
    first = {combined(16, 8, 8): 0.8, combined(8, 8, 16): 0.85, combined(8, 16, 8): 0.81}
    net = Net({**NARROW, **first, combined(16, 8, 16): 0.9})
    result = run(net, layers=SIZED)
    assert net.names[-4:] == [*first, combined(16, 8, 16)]
    assert bits(result) == [16, 8, 16]


@pytest.mark.parametrize("nothing", [0.3, math.nan])
def test_where_no_width_holds_the_margin_the_best_net_is_the_result(nothing: float) -> None:
    scores = {combined(a, b, c): nothing for a in (8, 16) for b in (8, 16) for c in (8, 16)}
    net = Net({**NARROW, **scores, combined(8, 16, 8): 0.75})
    result = run(net, layers=SIZED)
    assert net.names[-1] == combined(16, 16, 16)
    assert bits(result) == [8, 16, 8]
    assert result.combined is not None
    assert not result.combined.passed


def test_widths_that_are_given_are_not_widened() -> None:
    net = Net({**NARROW, **{combined(16, 4, 8): 0.5, combined(16, 4, 16): 0.9}})
    result = run(net, layers=SIZED, given={"fc_params": 4, "layer": 8})
    assert net.names[-2:] == ["the combined net", combined(16, 4, 8)]
    assert bits(result) == [8, 4, 8]


@pytest.mark.parametrize("settings", [{"hold_margin": False}, {"legacy": True}])
def test_without_holding_the_margin_the_combined_net_is_the_result(settings: Mapping[str, Any]) -> None:
    net = Net(NARROW)
    result = run(net, layers=SIZED, **settings)
    assert net.names[-1] == "the combined net"
    assert bits(result) == [8, 8, 8]
    assert result.narrowest is None
    assert result.widenings == ()


# --- the smallest widths


def below(width: int, part: str = "CONV weights") -> dict[str, float]:
    """Scores at which all widths of a part below this one fail."""
    return {f"{bits}bit {part}": 0.5 for bits in range(1, width)}


@pytest.mark.parametrize("width", range(1, 17))
def test_the_smallest_width_of_each_group_is_found_by_bisection(width: int) -> None:
    net = Net(below(width))
    result = run(net, "CONV", smallest=True)
    assert bits(result)[0] == width
    tried = [each.bits for each in result.groups[0].trials]
    assert tried == sorted(tried, reverse=True)
    assert len(tried) <= 5 + 3
    assert len(set(net.names)) == len(net.names)


def test_where_all_widths_of_the_list_pass_smaller_ones_are_tried() -> None:
    result = run(Net(below(3)), "CONV", offered=(16, 8), smallest=True)
    assert [each.bits for each in result.groups[0].trials] == [16, 8, 4, 3, 2]


def test_where_no_width_of_the_list_passes_larger_ones_are_tried() -> None:
    assert bits(run(Net(below(19)), "CONV", smallest=True))[0] == 19
    assert bits(run(Net(below(32)), "CONV", smallest=True))[0] == 32


def test_in_a_mode_of_one_group_the_smallest_possible_width_is_the_result() -> None:
    # With four exponent bits a minifloat has at least six bits.
    result = run(Net({}), "CONV", mode="minifloat", offered=(16,), smallest=True)
    assert bits(result) == [6]
    assert result.combined is not None
    assert result.combined == result.groups[0].trials[-1]


NO_NET = {combined(a, b, c): 0.5 for a in range(5, 17) for b in range(5, 17) for c in range(5, 17)}
SMALL = {**below(6), **below(5, "FC weights"), **below(7, "layer activations"), "the combined net": 0.7}


def test_a_combined_net_of_smallest_widths_is_widened_by_single_bits() -> None:
    first = {combined(7, 5, 7): 0.8, combined(6, 5, 8): 0.85, combined(6, 6, 7): 0.81}
    net = Net({**SMALL, **NO_NET, **first, combined(16, 16, 16): 0.9, combined(7, 5, 8): 0.885})
    result = run(net, layers=SIZED, smallest=True)
    assert net.names[-6:] == ["the combined net", combined(16, 16, 16), *first, combined(7, 5, 8)]
    assert bits(result) == [7, 5, 8]
    assert result.combined is not None
    assert (result.combined.score, result.combined.passed) == (0.885, True)


def test_where_even_the_widest_net_misses_the_margin_no_steps_are_tried() -> None:
    net = Net({**SMALL, **NO_NET, combined(16, 16, 16): 0.8})
    result = run(net, layers=SIZED, smallest=True)
    assert net.names[-2:] == ["the combined net", combined(16, 16, 16)]
    assert bits(result) == [16, 16, 16]
    assert result.combined is not None
    assert not result.combined.passed
