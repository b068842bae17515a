"""The search layer by layer, on distortions and scores that are made up, and on whole nets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ristretto_cli.cli import quantize as cli_quantize
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import Role
from ristretto_cli.net.costs import Costs
from ristretto_cli.quantize.config import Minimize, SearchKind
from ristretto_cli.quantize.layer_search import (
    LOWEST,
    Knob,
    LayerSearch,
    LayerSearchResult,
    NetCosts,
    Objective,
    knobs,
    probe_iterations,
)
from ristretto_cli.quantize.pipeline import planned_nets, quantize
from ristretto_cli.quantize.rewrite import Widths
from ristretto_cli.quantize.search import Candidate, Evaluation
from ristretto_cli.scoring.scores import Scores

from ..conftest import NET

# a has 32 weights, b 4 and c 8; a reads 4 x 4 values, b and c read the 2 of a, with a ReLU in place
NET_OF_THREE = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 5 dim: 1 dim: 4 dim: 4 } } }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a"
            convolution_param { num_output: 2 kernel_size: 4 bias_term: false } }
    layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
            inner_product_param { num_output: 2 bias_term: false } }
    layer { name: "c" type: "InnerProduct" bottom: "a" top: "c"
            inner_product_param { num_output: 4 bias_term: false } }
"""
ROLES = (Role.PARAMS, Role.LAYER_IN, Role.LAYER_OUT)
BASE = {name: dict.fromkeys(ROLES, 8) for name in "abc"}


def nothing_given(layer: Any, role: Role) -> bool:
    return False


class Scored:
    """A net whose distortion is the sum of those of its parts, 4^-bits times a factor, and whose score follows it."""

    def __init__(self, costs: NetCosts, objective: Objective, factors: Mapping[tuple[str, Role], float]) -> None:
        self.factors = factors
        self.evaluated: list[Widths] = []
        self.measured: list[str] = []
        self.costs = costs
        self.objective = objective
        self.found = knobs(objective, costs.model, BASE, nothing_given)

    def distortion(self, candidate: Candidate) -> float:
        self.measured.append(candidate.name)
        return self._distortion(candidate.widths)

    def _distortion(self, widths: Widths) -> float:
        return sum(
            self.factors.get((name, role), 0.0) * 4.0**-bits
            for name, roles in widths.items()
            for role, bits in roles.items()
        )

    def score(self, widths: Widths) -> float:
        return 0.9 - self._distortion(widths)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        self.evaluated.append(candidate.widths)
        score = self.score(candidate.widths)
        return Evaluation(candidate.bits, score, score >= 0.88, Scores((), 0.0, 1))

    def run(self) -> LayerSearchResult:
        search = LayerSearch(
            self.objective,
            self.found,
            BASE,
            self.costs,
            evaluate=self.evaluate,
            distortion=self.distortion,
            missed_by=lambda score: (0.9 - score) * 100,
        )
        return search.run([], 1)


@pytest.fixture
def scored(workshop: Any) -> Callable[..., Scored]:
    def make(objective: Objective, factors: Mapping[tuple[str, Role], float]) -> Scored:
        return Scored(NetCosts(workshop.load(NET_OF_THREE)), objective, factors)

    return make


WEIGHTS = Objective(Minimize.WEIGHTS)
SENSITIVE = {("a", Role.PARAMS): 0.1, ("b", Role.PARAMS): 10.0, ("c", Role.PARAMS): 1.0}


def best(net: Scored, limit: float | None = None) -> float:
    """The lowest cost at which a net passes, or the best score within a limit, of all combinations of weights."""
    found = []
    for bits in ((a, b, c) for a in range(2, 9) for b in range(2, 9) for c in range(2, 9)):
        widths = {name: {**BASE[name], Role.PARAMS: width} for name, width in zip("abc", bits, strict=True)}
        cost, score = net.objective.cost(net.costs.of(widths)), net.score(widths)
        if limit is None and score >= 0.88:
            found.append(cost)
        elif limit is not None and cost <= limit:
            found.append(-score)
    return abs(min(found))


def test_the_cheapest_net_within_the_margin_is_found(scored: Callable[..., Scored]) -> None:
    net = scored(WEIGHTS, SENSITIVE)
    result = net.run()
    assert result.fits
    assert result.chosen.costs.parameter_bits == best(net)
    widths = {name: result.chosen.widths[name][Role.PARAMS] for name in "abc"}
    assert widths["a"] < widths["c"] < widths["b"]
    assert all(result.chosen.widths[name][Role.LAYER_IN] == 8 for name in "abc")


def test_the_best_score_within_a_limit_is_found(scored: Callable[..., Scored]) -> None:
    for limit in (110, 150, 190, 250):
        net = scored(Objective(Minimize.WEIGHTS, limit), SENSITIVE)
        result = net.run()
        assert result.fits
        assert result.chosen.costs.parameter_bits <= limit
        assert result.chosen.evaluation.score == pytest.approx(best(net, limit))


def test_the_curve_has_ten_nets_from_wide_to_narrow(scored: Callable[..., Scored]) -> None:
    result = scored(WEIGHTS, SENSITIVE).run()
    sizes = [point.costs.parameter_bits for point in result.curve]
    assert len(result.curve) >= 10
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (44 * 8, 44 * LOWEST)
    assert any(point is result.chosen for point in result.curve)
    assert {point.evaluation.passed for point in result.curve} == {True, False}


def test_each_net_is_scored_once(scored: Callable[..., Scored]) -> None:
    net = scored(WEIGHTS, SENSITIVE)
    net.run()
    assert all(one != other for i, one in enumerate(net.evaluated) for other in net.evaluated[:i])


def test_a_margin_that_no_net_keeps_is_reported_with_the_best_net(scored: Callable[..., Scored]) -> None:
    net = scored(WEIGHTS, {**SENSITIVE, ("a", Role.LAYER_IN): 4.0**8})
    result = net.run()
    assert not result.fits
    assert result.chosen.evaluation.score == max(point.evaluation.score for point in result.curve)


def test_distortions_of_parts_are_measured_alone(scored: Callable[..., Scored]) -> None:
    net = scored(WEIGHTS, SENSITIVE)
    net.run()
    assert net.measured[:6] == [*(f"{bits}bit a params" for bits in (6, 5, 4, 3, 2)), "6bit b params"]
    assert len(net.measured) == 15


def test_for_bit_operations_weights_and_inputs_are_narrowed(scored: Callable[..., Scored]) -> None:
    factors = {**SENSITIVE, ("a", Role.LAYER_IN): 0.1, ("b", Role.LAYER_IN): 100.0, ("c", Role.LAYER_IN): 1.0}
    result = scored(Objective(Minimize.BITOPS), factors).run()
    chosen = result.chosen.widths
    assert result.fits
    assert chosen["a"][Role.LAYER_IN] < chosen["c"][Role.LAYER_IN] < chosen["b"][Role.LAYER_IN]
    assert {chosen[name][Role.LAYER_OUT] for name in "abc"} == {8}
    macs = {"a": 32, "b": 4, "c": 8}
    operations = sum(macs[name] * chosen[name][Role.LAYER_IN] * chosen[name][Role.PARAMS] for name in "abc")
    assert result.chosen.costs.bit_operations == operations


def test_activations_on_both_sides_of_a_blob_are_one_width(workshop: Any) -> None:
    costs = NetCosts(workshop.load(NET_OF_THREE))
    found = knobs(Objective(Minimize.ACTIVATIONS), costs.model, BASE, nothing_given)
    # The ReLU writes a last, so its readers decide; the input is no blob of a layer.
    assert [knob.parts for knob in found] == [
        (("b", Role.LAYER_IN), ("c", Role.LAYER_IN)),
        (("b", Role.LAYER_OUT),),
        (("c", Role.LAYER_OUT),),
    ]
    assert [knob.values for knob in found] == [10, 10, 20]


def test_a_blob_with_a_float_reader_saves_nothing(workshop: Any) -> None:
    costs = NetCosts(workshop.load(NET_OF_THREE))
    found = knobs(Objective(Minimize.ACTIVATIONS), costs.model, {"a": BASE["a"], "b": BASE["b"]}, nothing_given)
    assert [knob.parts for knob in found] == [(("b", Role.LAYER_OUT),)]


def test_given_widths_are_not_searched_and_wide_ones_start_higher(workshop: Any) -> None:
    costs = NetCosts(workshop.load(NET_OF_THREE))
    base = {**BASE, "a": {**BASE["a"], Role.PARAMS: 16}, "c": {**BASE["c"], Role.PARAMS: 4}}
    found = knobs(WEIGHTS, costs.model, base, lambda layer, role: layer.name == "b")
    assert found == [Knob((("a", Role.PARAMS),), 16, 32), Knob((("c", Role.PARAMS),), 8, 8)]


def test_biases_of_a_format_of_their_own_are_not_counted_with_the_weights(workshop: Any) -> None:
    costs = NetCosts(workshop.load(NET_OF_THREE.replace("num_output: 2 bias_term: false", "num_output: 2")))
    own = {name: {**roles, Role.BIAS: 16} for name, roles in BASE.items()}
    for base, biases in ((BASE, 2), (own, 0)):
        (knob,) = [each for each in knobs(WEIGHTS, costs.model, base, nothing_given) if each.parts[0][0] == "b"]
        assert knob.values == 4 + biases


@pytest.mark.parametrize(
    ("count", "iterations", "batch", "expected"),
    [(22, 20, 100, 3), (4, 10, 36, 9), (1000, 50, 10, 1), (1, 50, 1, 50), (10, 50, 100, 6)],
)
def test_many_parts_are_measured_on_few_batches(count: int, iterations: int, batch: int, expected: int) -> None:
    found = [Knob((("a", Role.PARAMS),), 8, 1)] * count
    assert probe_iterations(found, iterations, batch) == expected


# --- whole nets


def command(*flags: str) -> Result:
    arguments = ["--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2", "--calibration_iterations=2"]
    return CliRunner().invoke(cli_quantize.command, [*arguments, "--trimming_mode=dynamic_fixed_point", *flags])


def test_the_result_has_the_curve_and_the_widths_are_written(two_classes: Any) -> None:
    two_classes().job()
    result = command("--search=layers", "--json=r.json")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("r.json").read_text())
    (chosen,) = [point for point in found["curve"] if point["chosen"]]
    assert (found["search"], found["minimize"], found["size_limit_kb"]) == ("layers", "weights", None)
    assert chosen["passed"]
    assert chosen["score"] == found["combined"]["score"]
    for name in ("conv", "fc"):
        written = found["layers"][name]["quantization_param"]
        assert {role: written[f"bw_{role}"] for role in chosen["widths"][name]} == chosen["widths"][name]
    # Both layers have four weights; of two bits each they have the score of the float net.
    assert (chosen["size_kb"], chosen["widths"]["conv"]["params"], chosen["widths"]["fc"]["params"]) == (0.002, 2, 2)
    assert "Widths by layer:" in result.output
    assert "Widened from" not in result.output


def test_a_limit_that_cannot_be_met_is_refused_before_anything_is_run(two_classes: Any) -> None:
    two_classes().job()
    for flag, least in (("--size_limit_kb=0.001", "0.0 kB"), ("--bitops_limit=10", "32 bit operations")):
        result = command("--search=layers", flag, "--dry_run")
        assert result.exit_code == 1
        assert f"{flag} cannot be met. The smallest net of the search has {least}." in str(result.exception)


def test_within_a_limit_the_margin_is_not_mentioned(two_classes: Any) -> None:
    two_classes().job()
    result = command("--search=layers", "--size_limit_kb=0.004")
    assert "The limit is kept: the parameters have 0.0 kB of 0.004 kB." in result.output
    assert "error margin" not in result.stdout
    result = command("--search=layers", "--bitops_limit=200")
    assert "of 200 bit operations." in result.output


def test_given_widths_leave_nothing_to_search(two_classes: Any) -> None:
    two_classes().job()
    result = command("--search=layers", "--bw=conv_params=8,fc_params=8", "--dry_run")
    assert "--search=layers has nothing to search" in str(result.exception)


def test_a_score_that_does_not_depend_on_weights_is_refused(two_classes: Any) -> None:
    constant = 'layer { name: "s" type: "Reduction" bottom: "data" top: "s" }'
    with pytest.raises(RistrettoError, match='"s" does not depend on weights'):
        planned_nets(two_classes().job(text=NET + constant, search=SearchKind.LAYERS, score="s"))


def test_pins_and_skipped_layers_are_kept(two_classes: Any) -> None:
    two_classes().job()
    result = command("--search=layers", "--bw=conv.params=5", "--json=r.json")
    assert result.exit_code == 0, result.output
    curve = json.loads(Path("r.json").read_text())["curve"]
    assert {point["widths"]["conv"]["params"] for point in curve} == {5}
    result = command("--search=layers", "--skip=conv", "--json=r.json")
    assert result.exit_code == 0, result.output
    assert all("conv" not in point["widths"] for point in json.loads(Path("r.json").read_text())["curve"])


def test_a_dry_run_names_what_is_measured(two_classes: Any) -> None:
    planned = planned_nets(two_classes().job(search=SearchKind.LAYERS))
    assert [line for line in planned if "conv params" in line] == [
        f"{bits}bit conv params, distortion, 2 iterations" for bits in (6, 5, 4, 3, 2)
    ]
    assert "nets with widths by layer" in planned[-1]


def test_a_detector_or_a_net_with_only_a_loss_is_searched_by_its_loss(two_classes: Any) -> None:
    only_loss = "\n".join(line for line in NET.splitlines() if "Accuracy" not in line)
    outcome = quantize(two_classes().job(text=only_loss, search=SearchKind.LAYERS, error_margin_percent=50.0))
    assert outcome.by_layer is not None
    assert outcome.by_layer.fits
    assert isinstance(outcome.by_layer.chosen.costs, Costs)


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (("--minimize=bitops",), "--minimize has no effect with --search=groups, only with --search=layers"),
        (("--size_limit_kb=5",), "--size_limit_kb has no effect with --search=groups, only with --search=layers"),
        (("--search=layers", "--size_limit_kb=5", "--bitops_limit=5"), "--size_limit_kb and --bitops_limit exclude"),
        (
            ("--search=layers", "--size_limit_kb=5", "--error_margin=1"),
            "--error_margin has no effect with --size_limit_kb",
        ),
        (("--search=layers", "--bitops_limit=5", "--minimize=weights"), "--minimize has no effect with --bitops_limit"),
        (("--search=layers", "--nohold_margin"), "--nohold_margin has no effect with --search=layers"),
        (("--search=layers", "--legacy"), "--search has no effect with --legacy"),
        (("--search=layers", "--size_limit_kb=0"), "--size_limit_kb"),
        (("--search=layers", "--size_limit_kb=inf"), "is not a finite number"),
        (
            ("--search=layers", "--trimming_mode=minifloat"),
            "--search=layers has no effect with --trimming_mode=minifloat",
        ),
    ],
)
def test_flags_without_effect_are_refused(two_classes: Any, flags: Any, fault: str) -> None:
    two_classes().job()
    result = command(*flags, "--dry_run")
    assert result.exit_code == 2
    assert fault in result.output
