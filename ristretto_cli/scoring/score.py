"""Scoring a net: the mean of each of its outputs over some batches, told as Caffe tells it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.layers.host_layer import Judging
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array
from ristretto_cli.scoring.batches import Batches, Reader
from ristretto_cli.scoring.cut_points import Prefix, values_at
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.evaluation import OnBatch, ScoredOutputs, Tally, ignore_progress, run_batches
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.host_layers import Runner
from ristretto_cli.scoring.metrics import tell_unscored
from ristretto_cli.scoring.phase_timer import Stopwatch
from ristretto_cli.scoring.profile import NetProfiler
from ristretto_cli.scoring.scores import Scores, number, score_lines

log = logging.getLogger("ristretto")


class StoppingRule(Protocol):
    """Decides from the sum of a blob's values over the first batches whether to stop early."""

    blob: str

    def should_stop(self, total: float, done: int) -> bool:
        """Whether the sum `total` of the first `done` batches is enough."""


@dataclass(frozen=True)
class Pass:
    """How a net is scored, and on how many batches (1 or more).

    batches: its inputs; by default those of its data layers. single_precision: sum up in float32, as the original does.
    how: the settings of layers that judge all batches at once.
    """

    iterations: int
    batches: Batches | None = None
    what: str = "scoring"
    on_batch: OnBatch = ignore_progress
    single_precision: bool = False
    how: Judging = field(default_factory=Judging)
    stopping: StoppingRule | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)


def score_net(
    net: Net,
    iterations: int,
    *,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    what: str = "scoring",
    on_batch: OnBatch = ignore_progress,
    single_precision: bool = False,
    how: Judging | None = None,
) -> Scores:
    """The scores of a net on `iterations` batches (1 or more), from the first record on.

    single_precision: sum up in float32, as the original does. Outputs with a variable number of items have no mean:
    those that no layer judges are left out. Raises RistrettoError for a net without outputs.
    """
    scorer = Scorer(net, rng=rng, execution=execution)
    wanted = Pass(iterations, None, what, on_batch, single_precision, how or Judging())
    return scorer.run(wanted)


def scoring_runner(
    net: Net,
    *,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    start: Prefix | None = None,
    keep: Sequence[Prefix] = (),
    profiler: NetProfiler | None = None,
) -> Runner:
    """The compiled net; it computes the outputs that have a score, and TOTAL_LOSS if the net has losses.

    start, keep: see Scorer. profiler: see compile_net. Raises RistrettoError for a net without outputs.
    """
    outputs = ScoredOutputs(net)

    # A closure, not a method: a bound method would make a reference cycle with the runner.
    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        picked = outputs.select(run)
        for prefix in keep:
            picked.update(values_at(prefix.cut, net, run))
        return picked

    return compile_net(
        net,
        select,
        rng=rng,
        execution=execution,
        on_host=outputs.on_host,
        cut=None if start is None else start.cut,
        profiler=profiler,
    )


class Scorer:
    """A compiled net that can be scored any number of times.

    start: the activations of another net to resume from, instead of running the layers before. keep: the activations
    to cache for other nets. Raises RistrettoError for a net without outputs.
    """

    def __init__(
        self,
        net: Net,
        *,
        rng: np.random.Generator,
        execution: Execution = DEFAULT,
        start: Prefix | None = None,
        keep: Sequence[Prefix] = (),
    ) -> None:
        self._net = net
        self._start = start
        self._keep = keep
        self._outputs = ScoredOutputs(net)
        self._runner = scoring_runner(net, rng=rng, execution=execution, start=start, keep=keep)

    def run(self, wanted: Pass) -> Scores:
        """The scores of one pass. Layers with a state continue from the last pass."""
        tell_unscored(self._net)
        tally = Tally(self._outputs, np.float32 if wanted.single_precision else np.float64)
        log.info("Running for %d iterations.", wanted.iterations)
        with self._reader(wanted) as reader:
            for results in run_batches(
                self._runner,
                reader,
                wanted.iterations,
                what=wanted.what,
                on_batch=wanted.on_batch,
                stopwatch=wanted.stopwatch,
            ):
                for prefix in self._keep:
                    prefix.keep({name: results.pop(name) for name in prefix.cut.kept})
                _log_batch(tally.done, {name: results[name] for name in tally.sums})
                tally.add(results)
                rule = wanted.stopping
                if rule is not None and rule.should_stop(float(tally.sums[rule.blob][0]), tally.done):
                    break
        scores = tally.scores(wanted.how)
        for line in score_lines(scores):
            log.info("%s", line)
        for output in scores.outputs:
            if not np.isfinite(output.means).all():
                log.warning("%s is NaN or infinite: no score of this net can be trusted", output.blob)
        return scores

    def _reader(self, wanted: Pass) -> Reader:
        batches = wanted.batches or Batches(self._net)
        if self._start is None:
            return batches.reader()
        return batches.reader(self._start.cut.inputs, self._start.kept)


def _log_batch(batch: int, results: Mapping[str, Array]) -> None:
    for name, array in results.items():
        for value in array.ravel().tolist():
            log.info("Batch %d, %s = %s", batch, name, number(value))
