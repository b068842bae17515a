"""Quantization from its configuration to its result: prepare, calibrate, search, evaluate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from ristretto_cli.formats.number_format import Ranges
from ristretto_cli.net.weights import with_weights
from ristretto_cli.quantize.calibration import calibrate
from ristretto_cli.quantize.config import QuantizeConfig, SearchKind
from ristretto_cli.quantize.correct import NetCorrector, easier_to_quantize
from ristretto_cli.quantize.evaluate import Evaluator, caching_scorer, first_layers_of_groups
from ristretto_cli.quantize.layer_search import (
    SCORED,
    LayerSearch,
    LayerSearchResult,
    NetCosts,
    Point,
    knobs,
    objective_of,
    probe_iterations,
)
from ristretto_cli.quantize.margin import Unit, scored_by
from ristretto_cli.quantize.prepare import Metric, Prepared, prepare
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.quantize.rewrite import Widths, apply_bit_widths
from ristretto_cli.quantize.search import (
    Candidate,
    Evaluation,
    SearchResult,
    SearchSpace,
    search,
    search_result,
    search_space,
)
from ristretto_cli.quantize.trimmable import Trimmable, family_of, left_float
from ristretto_cli.scoring.engine import log_device
from ristretto_cli.scoring.evaluation import OnBatch, ignore_progress
from ristretto_cli.scoring.step_timer import StepTimer

log = logging.getLogger("ristretto")


def quantize(config: QuantizeConfig, *, on_batch: OnBatch = ignore_progress) -> QuantizationResult:
    """Quantize a net; no file is written. Raises RistrettoError(s) for errors in the net, its weights and its data."""
    start = perf_counter()
    log_device(config.execution.gpu)
    timer = StepTimer()
    prepared = easier_to_quantize(prepare(config), timer)
    if prepared.metric is None:
        layers = calibrate(prepared, test_batches=None, on_batch=on_batch, timer=timer)
        found = search_result(_space(prepared, layers), {}, lambda candidate: 0.0)
        result = _result(prepared, layers, found, NetCorrector(prepared, timer))
    else:
        result = _search(prepared, prepared.metric, on_batch, timer)
    log.info("%s", timer.line())
    return replace(result, seconds=perf_counter() - start)


def planned_nets(config: QuantizeConfig) -> list[str]:
    """The nets that would be scored if each passed, in order, one per line. Reads no weights and runs nothing.

    Raises RistrettoError(s) for errors in the net and the configuration.
    """
    prepared = prepare(config, dry_run=True)
    config = prepared.config
    phase = "TRAIN" if prepared.calibration_net() is not prepared.net else "TEST"
    ranges = f"calibration on {phase} data, {config.calibration_iterations} iterations"
    if prepared.metric is None:
        return [ranges]
    layers = [Trimmable(layer, family_of(layer), Ranges(1.0, 1.0, 1.0)) for layer in prepared.trimmable]
    names = [
        candidate.name for candidate in search(_space(prepared, layers), lambda candidate: True, lambda candidate: 0.0)
    ]
    first, *others = [f"{name}, {config.iterations} iterations" for name in ("the float net", *names)]
    if config.search is SearchKind.LAYERS:
        others += _planned_by_layer(prepared)
    return [first, ranges, *others]


def _planned_by_layer(prepared: Prepared) -> list[str]:
    """The work of the search by layers, which depends on what it measures."""
    config, costs = prepared.config, NetCosts(prepared.net)
    found = knobs(objective_of(config), costs.model, prepared.widest(), prepared.has_given_width)
    iterations = probe_iterations(found, config.iterations, costs.model.batch)
    lines = [f"{bits}bit {knob.name}, distortion, {iterations} iterations" for knob in found for bits in knob.probed]
    return [*lines, f"about {SCORED} nets with widths by layer, {config.iterations} iterations"]


def _search(prepared: Prepared, metric: Metric, on_batch: OnBatch, timer: StepTimer) -> QuantizationResult:
    config = prepared.config
    scorer, batches = caching_scorer(prepared, on_batch, timer)
    log.info("%s", scored_by(metric.blob, metric.meaning, metric.goal))
    float_scores = scorer.score_float_net(first_layers_of_groups(prepared))
    layers = calibrate(prepared, test_batches=batches, on_batch=on_batch, timer=timer)
    if not prepared.mode.widths(config.bit_widths, [each.ranges for each in layers]):
        log.warning("--bit_widths has no width that %s can use for this net.", config.trimming_mode)
    margin = config.margin(metric.value(float_scores), metric.goal, decibels=metric.in_decibels)
    log.info("%s", margin.description())
    if margin.unit is Unit.PERCENT and margin.baseline == 0:
        log.warning(
            "The float net's loss is 0, and the error margin is relative to it, so no increase is allowed. "
            "Allow one with --error_margin_absolute, set widths with --bw, or choose another output with --score."
        )
    corrector = NetCorrector(prepared, timer)
    evaluator = Evaluator(prepared, layers, metric, margin, scorer, corrector)
    space = _space(prepared, layers)
    evaluations: dict[Candidate, Evaluation] = {}

    def missed_by(candidate: Candidate) -> float:
        return margin.missed_by(evaluations[candidate].score)

    for candidate in search(space, lambda candidate: evaluations[candidate].passed, missed_by):
        evaluations[candidate] = evaluator.evaluate(candidate)
    found = search_result(space, evaluations, missed_by)
    by_layer = None
    if config.search is SearchKind.LAYERS:
        by_layer = _search_layers(prepared, evaluator, found.widths, evaluations)
        found = found.with_widths(by_layer.chosen.widths, by_layer.chosen.evaluation, layers)
    result = _result(prepared, layers, found, corrector)
    return replace(
        result,
        margin=margin,
        baseline_scores=float_scores,
        by_layer=by_layer,
        scored=tuple(evaluations.items()),
    )


def _search_layers(
    prepared: Prepared, evaluator: Evaluator, base: Widths, evaluations: Mapping[Candidate, Evaluation]
) -> LayerSearchResult:
    """The search by layers that follows the one by groups. base: the widths of the latter's result."""
    objective, costs = objective_of(prepared.config), NetCosts(prepared.net)
    found = knobs(objective, costs.model, base, prepared.has_given_width)
    iterations = probe_iterations(found, prepared.config.iterations, costs.model.batch)
    layer_search = LayerSearch(
        objective,
        found,
        base,
        costs,
        evaluate=evaluator.evaluate,
        distortion=lambda candidate: evaluator.distortion(candidate, iterations),
        missed_by=evaluator.margin.missed_by,
    )
    known = [
        Point(candidate.widths, costs.of(candidate.widths), evaluation)
        for candidate, evaluation in evaluations.items()
        if candidate.group_bits
    ]
    return layer_search.run(known, iterations)


def _space(prepared: Prepared, layers: Sequence[Trimmable]) -> SearchSpace:
    config = prepared.config
    return search_space(
        prepared.mode,
        layers,
        config.bit_widths,
        config.bw,
        legacy=config.legacy,
        pins=prepared.pins,
        hold_margin=config.hold_margin,
        smallest=config.search is SearchKind.SMALLEST,
    )


def _result(
    prepared: Prepared, layers: Sequence[Trimmable], found: SearchResult, corrector: NetCorrector
) -> QuantizationResult:
    legacy = prepared.config.legacy
    quantized = apply_bit_widths(prepared.net_file, layers, found.widths, prepared.mode, legacy=legacy)
    corrected = corrector.correct(quantized)
    weights = None
    if prepared.config.weights_quantized and prepared.weights is not None:
        weights = with_weights(prepared.weights, prepared.net, corrected.weights)
    return QuantizationResult(
        config=prepared.config,
        mode=prepared.mode,
        score_blob=None if prepared.metric is None else prepared.metric.blob,
        score_meaning="" if prepared.metric is None else prepared.metric.meaning,
        margin=None,
        baseline_scores=None,
        layers=tuple(layers),
        search=found,
        net_file=corrected.net_file,
        weights=weights,
        folded=prepared.folded,
        left_float=tuple(left_float(prepared.net, {each.layer.name for each in layers})),
        skipped=prepared.skipped,
        pins=prepared.pins,
        net=prepared.net,
        float_file=prepared.net_file,
    )
