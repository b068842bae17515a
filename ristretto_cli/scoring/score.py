"""Scoring of a net: the mean of each of its outputs over some batches, logged as by Caffe."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array
from ristretto_cli.scoring.batches import BatchReader, CachedBatches
from ristretto_cli.scoring.comparisons import Comparison
from ristretto_cli.scoring.engine import CutPoint, Select, compile_net
from ristretto_cli.scoring.evaluation import OnBatch, ScoredOutputs, Tally, ignore_progress, run_batches
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.float_outputs import FloatOutputs
from ristretto_cli.scoring.host_layers import Runner
from ristretto_cli.scoring.metrics import log_unscored
from ristretto_cli.scoring.net_profile import NetProfiler
from ristretto_cli.scoring.prefix_cache import Prefix, activations_at
from ristretto_cli.scoring.scores import Scores, number, score_lines
from ristretto_cli.scoring.step_timer import StepTimer

log = logging.getLogger("ristretto")


class StoppingRule(Protocol):
    """Decides whether to stop early, from the sum of a blob's values over the first batches."""

    blob: str

    def should_stop(self, total: float, done: int) -> bool:
        """Whether the sum `total` of the first `done` batches is enough."""


@dataclass(frozen=True)
class ScoringOptions:
    """Options for scoring a net. iterations: the number of batches, 1 or more.

    batches: its inputs; by default those of its data layers. label: of the run, for on_batch. single_precision: add in
    float32, as the original does. stopping: ends the run early.
    """

    iterations: int
    batches: CachedBatches | None = None
    label: str = "scoring"
    on_batch: OnBatch = ignore_progress
    single_precision: bool = False
    metric_options: MetricOptions = field(default_factory=MetricOptions)
    stopping: StoppingRule | None = None
    timer: StepTimer = field(default_factory=StepTimer)


def score_net(
    net: Net,
    iterations: int,
    *,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    label: str = "scoring",
    on_batch: OnBatch = ignore_progress,
    single_precision: bool = False,
    metric_options: MetricOptions | None = None,
) -> Scores:
    """The scores of a net on `iterations` batches (1 or more), from the first record on.

    single_precision: add in float32, as the original does. Outputs with a variable number of items have no mean; they
    are omitted unless they have a metric. Raises RistrettoError for a net without outputs.
    """
    scorer = Scorer(net, rng=rng, execution=execution)
    options = ScoringOptions(iterations, None, label, on_batch, single_precision, metric_options or MetricOptions())
    return scorer.run(options)


class NetCompiler(Protocol):
    """Makes a runner of a net, as compile_net does."""

    def __call__(
        self,
        net: Net,
        select: Select,
        *,
        rng: np.random.Generator,
        execution: Execution,
        on_host: Collection[str],
        cut_point: CutPoint | None,
        profiler: NetProfiler | None,
    ) -> Runner: ...


def scoring_runner(
    net: Net,
    *,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    resume_from: Prefix | None = None,
    save: Sequence[Prefix] = (),
    profiler: NetProfiler | None = None,
    comparisons: Sequence[Comparison] = (),
    compiler: NetCompiler = compile_net,
) -> Runner:
    """The compiled net; it computes the outputs that have a score, and TOTAL_LOSS if the net has losses.

    resume_from, save: see Scorer. profiler: see compile_net. comparisons: whose blobs it computes as well. Raises
    RistrettoError for a net without outputs.
    """
    outputs = ScoredOutputs(net, comparisons=comparisons)

    # A closure, not a method: a bound method would make a reference cycle with the runner.
    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        picked = outputs.select(run)
        for prefix in save:
            picked.update(activations_at(prefix.cut_point, net, run))
        return picked

    return compiler(
        net,
        select,
        rng=rng,
        execution=execution,
        on_host=outputs.on_host,
        cut_point=None if resume_from is None else resume_from.cut_point,
        profiler=profiler,
    )


class Scorer:
    """A compiled net that can be scored any number of times.

    resume_from: the activations of another net to resume from, instead of running the layers before. save: the
    activations to cache for other nets. float_outputs: the float net's blobs to compare with. is_float: the net is the
    float net, whose blobs are cached there. compiler: makes the runner.

    Raises RistrettoError for a net without outputs.
    """

    def __init__(
        self,
        net: Net,
        *,
        rng: np.random.Generator,
        execution: Execution = DEFAULT,
        resume_from: Prefix | None = None,
        save: Sequence[Prefix] = (),
        float_outputs: FloatOutputs | None = None,
        is_float: bool = False,
        compiler: NetCompiler = compile_net,
    ) -> None:
        comparisons = () if float_outputs is None else float_outputs.comparisons
        self._float_outputs = float_outputs
        self._is_float = is_float
        self._net = net
        self._resume_from = resume_from
        self._save = save
        self._outputs = ScoredOutputs(net, comparisons=comparisons)
        self._runner = scoring_runner(
            net,
            rng=rng,
            execution=execution,
            resume_from=resume_from,
            save=save,
            comparisons=comparisons,
            compiler=compiler,
        )

    def run(self, options: ScoringOptions) -> Scores:
        """The scores of one pass. Layers with a state continue from the last pass."""
        if not self._outputs.comparisons:
            log_unscored(self._net)
        tally = Tally(self._outputs, np.float32 if options.single_precision else np.float64)
        log.info("Running for %d iterations.", options.iterations)
        with self._reader(options) as reader:
            for results in run_batches(
                self._comparing_runner(),
                reader,
                options.iterations,
                label=options.label,
                on_batch=options.on_batch,
                timer=options.timer,
            ):
                for prefix in self._save:
                    activations = {name: results.pop(name) for name in prefix.cut_point.activations}
                    prefix.store(activations, has_own_shapes=reader.has_own_shapes)
                _log_batch(tally.done, {blob.name: results[blob.name] for blob in self._outputs.averaged})
                for each in self._outputs.comparisons:
                    _log_batch(tally.done, {each.name: np.array(each.score(results[each.name], 1))})
                tally.add(results)
                rule = options.stopping
                if rule is not None and rule.should_stop(float(tally.sums[rule.blob][0]), tally.done):
                    break
        scores = tally.scores(options.metric_options)
        for line in score_lines(scores):
            log.info("%s", line)
        for output in scores.outputs:
            if np.isnan(output.means).any() or not (output.may_be_infinite or np.isfinite(output.means).all()):
                log.warning("%s is NaN or infinite, so the scores of this net are not reliable.", output.blob)
        return scores

    def _comparing_runner(self) -> Runner:
        """The net, with the values of comparisons."""
        if self._float_outputs is None:
            return self._runner
        compare = self._float_outputs.recording if self._is_float else self._float_outputs.comparing
        return compare(self._runner)

    def _reader(self, options: ScoringOptions) -> BatchReader:
        batches = options.batches or CachedBatches(self._net)
        if self._resume_from is None:
            return batches.reader()
        return batches.reader(self._resume_from.cut_point.inputs, self._resume_from.cached)


def _log_batch(batch: int, results: Mapping[str, Array]) -> None:
    for name, array in results.items():
        for value in array.ravel().tolist():
            log.info("Batch %d, %s = %s", batch, name, number(value))
