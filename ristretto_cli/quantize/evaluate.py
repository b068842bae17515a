"""Evaluation: the score of each candidate of a search, and whether it is within the error margin."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ristretto_cli.ops import Array
from ristretto_cli.quantize.caching_scorer import CachingScorer
from ristretto_cli.quantize.correct import CorrectedNet, NetCorrector
from ristretto_cli.quantize.early_stopping import EarlyStopping
from ristretto_cli.quantize.margin import Margin
from ristretto_cli.quantize.prepare import Metric, Prepared
from ristretto_cli.quantize.rewrite import apply_bit_widths
from ristretto_cli.quantize.search import Candidate, Evaluation
from ristretto_cli.quantize.trimmable import Trimmable, family_of
from ristretto_cli.scoring.array_cache import ArrayCache
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.evaluation import OnBatch
from ristretto_cli.scoring.score import ScoringOptions
from ristretto_cli.scoring.scores import number
from ristretto_cli.scoring.step_timer import StepTimer

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class Evaluator:
    """Evaluates candidates for some layers against a margin; scorer: scores the nets, as corrector corrects them.

    reference: the float net's predictions, once they are needed.
    """

    prepared: Prepared
    layers: Sequence[Trimmable]
    metric: Metric
    margin: Margin
    scorer: CachingScorer
    corrector: NetCorrector
    reference: dict[int, list[list[Array]]] = field(default_factory=dict)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """The evaluation of a candidate."""
        config = self.prepared.config
        stopping = None
        if config.early_stop and not candidate.in_full:
            stopping = EarlyStopping(self.metric.blob, self.margin, config.iterations, single_precision=config.legacy)
        quantized = self._quantized(candidate)
        scores = self.scorer.score(candidate.name, quantized.net_file, stopping, weights=quantized.weights)
        score = self.metric.value(scores)
        if stopping is not None and stopping.passed is not None and scores.iterations < config.iterations:
            return Evaluation(candidate.bits, score, stopping.passed, scores, stopped=True)
        return Evaluation(candidate.bits, score, self.margin.allows(score), scores)

    def distortion(self, candidate: Candidate, iterations: int) -> float:
        """How far a candidate's predictions are from the float net's on the first batches."""
        net_file, places = self.prepared.net_file, self.metric.predictions(self.prepared.net)
        if iterations not in self.reference:
            self.reference[iterations] = self.scorer.predictions("the float net", net_file, places, iterations)
        quantized = self._quantized(candidate, in_short=True)
        found = self.scorer.predictions(
            candidate.name, quantized.net_file, places, iterations, weights=quantized.weights
        )
        pairs = zip(places, found, self.reference[iterations], strict=True)
        distortion = sum(place.distortion(rows, reference) for place, rows, reference in pairs)
        log.info("Distortion of %s: %s", candidate.name, number(distortion))
        return distortion

    def _quantized(self, candidate: Candidate, *, in_short: bool = False) -> CorrectedNet:
        """The net of a candidate, corrected."""
        prepared = self.prepared
        legacy = prepared.config.legacy
        return self.corrector.correct(
            apply_bit_widths(prepared.net_file, self.layers, candidate.widths, prepared.mode, legacy=legacy),
            in_short=in_short,
        )


def caching_scorer(prepared: Prepared, on_batch: OnBatch, timer: StepTimer) -> tuple[CachingScorer, CachedBatches]:
    """A scorer for the net and its candidates, and the batches that it scores them on."""
    config = prepared.config
    cache = ArrayCache(config.cache_mb << 20)
    batches = CachedBatches(prepared.net, cache if config.cache_mb else None, config.data)
    options = ScoringOptions(
        config.iterations,
        batches,
        on_batch=on_batch,
        single_precision=config.legacy,
        metric_options=config.metric_options,
        timer=timer,
    )
    scorer = CachingScorer(
        prepared.net_file,
        prepared.net,
        options,
        rng=prepared.rng,
        execution=config.execution,
        cache=cache,
        reuse=config.reuse if config.cache_mb else replace(config.reuse, prefixes=False, float_outputs=False),
        comparisons=() if prepared.metric is None else prepared.metric.comparisons,
    )
    return scorer, batches


def first_layers_of_groups(prepared: Prepared) -> list[int]:
    """The position of the first layer that each group quantizes."""
    positions = [
        next((i for i, layer in enumerate(prepared.net.layers) if layer in layers), None)
        for group in prepared.mode.groups
        if (layers := [layer for layer in prepared.trimmable if family_of(layer) in group.families])
    ]
    return sorted({position for position in positions if position is not None})
