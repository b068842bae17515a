"""Scoring a net: the mean of each of its outputs over some batches, told as Caffe tells it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.layers.host_layer import Judging
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Blob, Net, in_graph
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.batches import Batches, Reader
from ristretto_cli.scoring.cuts import Prefix, values_at
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.host import Runner
from ristretto_cli.scoring.outputs import judges_of, loss_weights, scored, tell_unscored
from ristretto_cli.scoring.profile import NetProfiler
from ristretto_cli.scoring.stopwatch import Stopwatch

log = logging.getLogger("ristretto")

OnBatch = Callable[[int, int, str], None]  # batches done, batches in all, what is being run

TOTAL_LOSS = "@total_loss"  # no blob can be called so in a graph of ours: blobs keep their names


def ignore_progress(done: int, total: int, what: str) -> None:
    """An OnBatch that does nothing."""


@dataclass(frozen=True)
class Output:
    """An output blob's mean over all batches, flat; weight: its loss weight, 0 where it is no loss.

    Of a blob that is judged in whole (see JudgingLayer), means is the verdict's one number, and parts are its parts.
    """

    blob: str
    weight: float
    means: AnyArray
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The blob as one number: the mean of its elements."""
        return float(self.means.mean())


@dataclass(frozen=True)
class Scores:
    """What scoring a net gave. loss: the mean weighted sum of its losses. iterations: the batches that were run."""

    outputs: tuple[Output, ...]
    loss: float
    iterations: int

    def of(self, blob: str) -> float:
        """The score of one output."""
        return next(output.score for output in self.outputs if output.blob == blob)


class StoppingRule(Protocol):
    """Whether to stop before all batches are run, by the sum of a blob's values over the first batches."""

    blob: str

    def should_stop(self, total: float, done: int) -> bool:
        """Whether the sum `total` of the first `done` batches is enough."""


@dataclass(frozen=True)
class Pass:
    """How a net is scored: over how many batches (1 or more), and what of them.

    batches: what it is fed; by default what its own data layers bring. single_precision: sum up in float32, as the
    original does. how: what is judged in whole is judged so.
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
    """Run `iterations` batches (1 or more), from the first record on, and average each output, or judge it.

    single_precision: sum up in float32, as the original does. Outputs with as many values as the data makes have no
    mean: those that no layer judges are left out. Raises RistrettoError for a net without outputs.
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
    """What computes the outputs of a net that have a score, and TOTAL_LOSS where it has losses.

    start, keep: as Scorer says. profiler: as compile_net says. Raises RistrettoError for a net without outputs.
    """
    judges = judges_of(net)
    averaged = [blob for blob in scored(net) if blob.name not in judges]

    # No method: the runner holds it, and would have to wait for Python to find that we hold each other.
    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        picked = {blob.name: run.end[blob.name] for blob in in_graph(averaged)}
        for prefix in keep:
            picked.update(values_at(prefix.cut, net, run))
        return picked if run.loss is None else {**picked, TOTAL_LOSS: run.loss}

    return compile_net(
        net,
        select,
        rng=rng,
        execution=execution,
        on_host=[*judges, *(blob.name for blob in averaged if blob.on_host)],
        cut=None if start is None else start.cut,
        profiler=profiler,
    )


class Scorer:
    """A net made ready to be scored, as often as wanted.

    start: what it goes on from of another net's pass, in place of running the layers that made it. keep: what is to be
    kept of its values for other nets. Raises RistrettoError for a net without outputs.
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
        self._judges = judges_of(net)
        self._averaged = [blob for blob in scored(net) if blob.name not in self._judges]
        self._runner = scoring_runner(net, rng=rng, execution=execution, start=start, keep=keep)

    def run(self, wanted: Pass) -> Scores:
        """The scores of one pass; a net whose layers keep a state goes on from its last pass."""
        tell_unscored(self._net)
        dtype: Any = np.float32 if wanted.single_precision else np.float64
        tally = _Tally(self._averaged, list(self._judges), dtype)
        log.info("Running for %d iterations.", wanted.iterations)
        with self._reader(wanted) as reader:
            for i in range(wanted.iterations):
                with wanted.stopwatch.measure("reading data"):
                    batch = reader.next()
                with wanted.stopwatch.measure("running"):
                    results = self._runner.run(batch)
                for prefix in self._keep:
                    prefix.keep({name: results.pop(name) for name in prefix.cut.kept})
                tally.add(results)
                wanted.on_batch(i + 1, wanted.iterations, wanted.what)
                rule = wanted.stopping
                if rule is not None and rule.should_stop(float(tally.sums[rule.blob][0]), i + 1):
                    break
        scores = self._scores(tally, wanted)
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

    def _scores(self, tally: _Tally, wanted: Pass) -> Scores:
        weights, done = loss_weights(self._net), tally.dtype(tally.done)
        outputs = {name: Output(name, weights.get(name, 0.0), total / done) for name, total in tally.sums.items()}
        for name, (judge, layer) in self._judges.items():
            verdict = judge.judge(layer, tally.judged[name], wanted.how)
            outputs[name] = Output(name, 0.0, np.array([verdict.value]), verdict.parts)
        return Scores(tuple(outputs[blob.name] for blob in scored(self._net)), float(tally.loss / done), tally.done)


class _Tally:
    """What a pass has summed up so far: blobs that are averaged, those that are judged in whole, losses."""

    def __init__(self, averaged: Sequence[Blob], judged: Sequence[str], dtype: Any) -> None:
        self.dtype = dtype
        self.done = 0
        self.sums: dict[str, AnyArray] = {blob.name: np.zeros(blob.shape, dtype).ravel() for blob in averaged}
        self.judged: dict[str, list[Array]] = {name: [] for name in judged}
        self.loss = dtype(0)

    def add(self, results: Mapping[str, Array]) -> None:
        """Add a batch, and tell it."""
        for name, total in self.sums.items():
            values = results[name].ravel()
            total += values
            for value in values.tolist():
                log.info("Batch %d, %s = %s", self.done, name, number(value))
        for name, tops in self.judged.items():
            tops.append(results[name])
        self.loss += results.get(TOTAL_LOSS, 0)
        self.done += 1


def score_lines(scores: Scores) -> list[str]:
    """The means as Caffe's test prints them, one line each; before them the parts of what is judged, as SSD does."""
    lines = [f"Loss: {number(scores.loss)}"]
    for output in scores.outputs:
        lines += [f"{name}: {number(part)}" for name, part in output.parts.items()]
        for mean in output.means:
            weighted = f" (* {number(output.weight)} = {number(output.weight * mean)} loss)"
            lines.append(f"{output.blob} = {number(mean)}{weighted if output.weight else ''}")
    return lines


def scores_as_json(scores: Scores) -> dict[str, Any]:
    """The loss and the means of each output, for JSON, and the parts of those that have some."""
    parts = {output.blob: dict(output.parts) for output in scores.outputs if output.parts}
    return {
        "loss": scores.loss,
        "outputs": {output.blob: [float(mean) for mean in output.means] for output in scores.outputs},
        **({"parts": parts} if parts else {}),
    }


def number(value: float) -> str:
    """A number with six significant digits, as C++ streams print it."""
    return format(float(value), "g")
