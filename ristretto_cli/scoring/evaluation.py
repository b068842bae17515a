"""The evaluation loop: batches run through a net one after another, and their outputs combined into scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ristretto_cli.backends.onnx import Node
from ristretto_cli.layers.host_layer import Judging
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Blob, Net, in_graph
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.host_layers import Runner
from ristretto_cli.scoring.metrics import judges_of, loss_weights, scored
from ristretto_cli.scoring.phase_timer import Stopwatch
from ristretto_cli.scoring.scores import Output, Scores

OnBatch = Callable[[int, int, str], None]  # batches done, batches in all, what is being run

TOTAL_LOSS = "@total_loss"  # no blob of the graph has this name: blobs keep theirs, and none starts with "@"


def ignore_progress(done: int, total: int, what: str) -> None:
    """An OnBatch that does nothing."""


class BatchSource(Protocol):
    """Yields batches."""

    def next(self) -> Mapping[str, AnyArray]:
        """The next batch: an array for each input of the net, by name."""


def run_batches(
    runner: Runner,
    source: BatchSource,
    iterations: int,
    *,
    what: str = "",
    on_batch: OnBatch = ignore_progress,
    stopwatch: Stopwatch | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Iterator[dict[str, Array]]:
    """The results of `iterations` batches, one after another.

    on_batch: called with `what` after each batch. stopwatch: measures reading and running. go_on: asked before each
    batch; the run ends when it returns False.
    """
    stopwatch = stopwatch or Stopwatch()
    for i in range(iterations):
        if not go_on():
            return
        with stopwatch.measure("reading data"):
            batch = source.next()
        with stopwatch.measure("running"):
            results = runner.run(batch)
        on_batch(i + 1, iterations, what)
        yield results


class ScoredOutputs:
    """The outputs of a net that have a score: those that are averaged, those that a layer judges, and the loss.

    blobs: which outputs; by default all that can be scored, and RistrettoError where there are none.
    """

    def __init__(self, net: Net, blobs: Sequence[Blob] | None = None) -> None:
        self.blobs = scored(net) if blobs is None else blobs
        self.judges = judges_of(net)
        self.averaged = [blob for blob in self.blobs if blob.name not in self.judges]
        self.weights = loss_weights(net)

    @property
    def on_host(self) -> list[str]:
        """The blobs that host layers compute, by name."""
        return [*self.judges, *(blob.name for blob in self.averaged if blob.on_host)]

    def select(self, run: Run[Node]) -> dict[str, Node]:
        """The values of a graph that the scores need, by blob name; the loss is called TOTAL_LOSS."""
        picked = {blob.name: run.end[blob.name] for blob in in_graph(self.averaged)}
        return picked if run.loss is None else {**picked, TOTAL_LOSS: run.loss}


class Tally:
    """The sums of scored outputs over the batches so far. dtype: what they are summed up in."""

    def __init__(self, outputs: ScoredOutputs, dtype: Any = np.float64) -> None:
        self.done = 0
        self.sums: dict[str, AnyArray] = {blob.name: np.zeros(blob.shape, dtype).ravel() for blob in outputs.averaged}
        self._outputs = outputs
        self._dtype = dtype
        self._judged: dict[str, list[Array]] = {name: [] for name in outputs.judges}
        self._loss = dtype(0)

    def add(self, results: Mapping[str, Array]) -> None:
        """Add the results of a batch."""
        for name, total in self.sums.items():
            total += results[name].ravel()
        for name, tops in self._judged.items():
            tops.append(results[name])
        self._loss += results.get(TOTAL_LOSS, 0)
        self.done += 1

    def scores(self, how: Judging) -> Scores:
        """The scores of the batches so far, one or more. how: how layers judge."""
        weights, done = self._outputs.weights, self._dtype(self.done)
        found = {name: Output(name, weights.get(name, 0.0), total / done) for name, total in self.sums.items()}
        for name, (judge, layer) in self._outputs.judges.items():
            verdict = judge.judge(layer, self._judged[name], how)
            found[name] = Output(name, 0.0, np.array([verdict.value]), verdict.parts)
        return Scores(tuple(found[blob.name] for blob in self._outputs.blobs), float(self._loss / done), self.done)
