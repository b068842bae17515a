"""Scoring of candidate nets, with shared work done once.

Data are read once, equal nets are scored once, and the layers before the first trimmed one are run once. Scores are
unaffected.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np

from ristretto_cli.caffe_io.messages import TEST, Message
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array, Shape
from ristretto_cli.quantize.config import ReuseOptions
from ristretto_cli.quantize.distortion import Prediction
from ristretto_cli.scoring.array_cache import ArrayCache
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.comparisons import Comparison
from ristretto_cli.scoring.engine import CutPoint, compile_net
from ristretto_cli.scoring.evaluation import run_batches
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.float_outputs import FloatOutputs
from ristretto_cli.scoring.host_layers import Runner
from ristretto_cli.scoring.prefix_cache import Prefix, worthwhile_cut_point
from ristretto_cli.scoring.score import Scorer, ScoringOptions, StoppingRule, scoring_runner
from ristretto_cli.scoring.scores import Scores
from ristretto_cli.sources.open import DataLayers

log = logging.getLogger("ristretto")


class CachingScorer:
    """Scores the float net, and then nets that differ from it only in their quantization.

    options: for scoring all of them. rng: for random layers; each net gets a copy of it. cache: for activations of the
    float net. comparisons: of the nets with the float net.
    """

    def __init__(
        self,
        net_file: NetFile,
        net: Net,
        options: ScoringOptions,
        *,
        rng: np.random.Generator,
        execution: Execution,
        cache: ArrayCache,
        reuse: ReuseOptions,
        comparisons: Sequence[Comparison] = (),
    ) -> None:
        self._net_file = net_file
        self._net = net
        self._options = options
        self._rng = deepcopy(rng)  # never drawn from, only copied for each net
        self._execution = execution
        self._cache = cache
        self._reuse = reuse
        self._prefixes: list[Prefix] = []
        self._known: dict[bytes, tuple[str, Scores]] = {}
        self._float_outputs = None
        if comparisons:
            start = partial(self._float_runner, comparisons)
            self._float_outputs = FloatOutputs(comparisons, start, cache if reuse.float_outputs else None)

    def score_float_net(self, cut_before: Sequence[int]) -> Scores:
        """The scores of the float net. cut_before: positions of the first layers in which later nets may differ."""
        cut_points = [worthwhile_cut_point(self._net, layer) for layer in cut_before] if self._reuse.prefixes else []
        prefixes = [
            Prefix(cut_point, self._cache)
            for cut_point in cut_points
            if cut_point is not None and self._computes_compared(cut_point)
        ]
        log.info("Scoring the float net.")
        rng = deepcopy(self._rng)
        with self._options.timer.measure("building nets"):
            scorer = self._scorer(self._net, rng, save=prefixes, is_float=True)
        scores = scorer.run(replace(self._options, label="the float net"))
        # A net that resumes at a cut point would draw different random numbers.
        if rng.bit_generator.state == self._rng.bit_generator.state:
            self._prefixes = prefixes
        self._remember(self._net_file, "the float net", scores)
        return scores

    def score(
        self,
        name: str,
        net_file: NetFile,
        stopping: StoppingRule | None = None,
        *,
        weights: Mapping[str, Array] | None = None,
    ) -> Scores:
        """The scores of a net. name: for the log. stopping: may end the run early.

        weights: parameters that differ from the float net's, by Param.key; nets that are equal otherwise have equal
        ones.
        """
        log.info("Scoring %s.", name)
        key = _key(net_file)
        if key in self._known:
            other, scores = self._known[key]
            log.info("Same net as %s: its scores are reused.", other)
            return scores
        with self._options.timer.measure("building nets"):
            scorer = self._build(net_file, weights or {})
        scores = scorer.run(replace(self._options, label=name, stopping=stopping))
        if scores.iterations == self._options.iterations:
            self._remember(net_file, name, scores)
        return scores

    def predictions(
        self,
        label: str,
        net_file: NetFile,
        places: Sequence[Prediction],
        iterations: int,
        *,
        weights: Mapping[str, Array] | None = None,
    ) -> list[list[Array]]:
        """The rows of a net's predictions, for each place those of the first batches. weights: see `score`."""
        with self._options.timer.measure("building nets"):
            net = self._net_of(net_file, weights or {})
            prefix = self._prefix_of(net)
            runner = compile_net(
                net,
                lambda run, ops: {str(i): each.value(run) for i, each in enumerate(places)},
                rng=deepcopy(self._rng),
                execution=self._execution,
                cut_point=None if prefix is None else prefix.cut_point,
            )
        found: list[list[Array]] = [[] for _ in places]
        batches = self._options.batches or CachedBatches(net)
        only = () if prefix is None else (prefix.cut_point.inputs, prefix.cached)
        with batches.reader(*only) as reader:
            options = self._options
            for results in run_batches(
                runner, reader, iterations, label=label, on_batch=options.on_batch, timer=options.timer
            ):
                for i, each in enumerate(places):
                    found[i].append(each.rows(results[str(i)]))
        return found

    def _remember(self, net_file: NetFile, name: str, scores: Scores) -> None:
        if self._reuse.equal_nets:
            self._known.setdefault(_key(net_file), (name, scores))

    def _build(self, net_file: NetFile, weights: Mapping[str, Array]) -> Scorer:
        net = self._net_of(net_file, weights)
        return self._scorer(net, deepcopy(self._rng), resume_from=self._prefix_of(net))

    def _net_of(self, net_file: NetFile, weights: Mapping[str, Array]) -> Net:
        net = build(net_file, NetState(TEST), _KnownData(self._net))
        return replace(net, weights={**self._net.weights, **weights})

    def _prefix_of(self, net: Net) -> Prefix | None:
        """The longest prefix that a net can resume from."""
        valid = [each for each in self._prefixes if each.is_valid_for(net, self._net, self._options.iterations)]
        if self._float_outputs is not None and not self._float_outputs.is_cached:
            valid = []  # the float net is run along with this one, and needs all inputs
        return max(valid, key=lambda each: each.cut_point.layer, default=None)

    def _scorer(
        self,
        net: Net,
        rng: np.random.Generator,
        *,
        resume_from: Prefix | None = None,
        save: Sequence[Prefix] = (),
        is_float: bool = False,
    ) -> Scorer:
        return Scorer(
            net,
            rng=rng,
            execution=self._execution,
            resume_from=resume_from,
            save=save,
            float_outputs=self._float_outputs,
            is_float=is_float,
        )

    def _float_runner(self, comparisons: Sequence[Comparison]) -> Runner:
        rng = deepcopy(self._rng)
        return scoring_runner(self._net, rng=rng, execution=self._execution, comparisons=comparisons)

    def _computes_compared(self, cut_point: CutPoint) -> bool:
        """Whether a net that resumes at a cut point computes all blobs that are compared."""
        if self._float_outputs is None:
            return True
        later = {top.name for layer in self._net.layers[cut_point.layer :] for top in layer.tops}
        return all(each.blob in later for each in self._float_outputs.comparisons)


class _KnownData(DataLayers):
    """The data layers of a net that was built earlier; no file is reopened."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self._shapes = {
            _text(layer.message): [top.shape for top in layer.tops] for layer in net.layers if layer.is_source
        }

    def shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        known = self._shapes.get(_text(message))
        return tuple(known) if known is not None else super().shapes(message, phase)


def _key(net_file: NetFile) -> bytes:
    return _text(net_file.message)


def _text(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))
