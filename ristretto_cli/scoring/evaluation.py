"""The evaluation loop: batches run through a net one after another, and their outputs combined into scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ristretto_cli.backends.onnx import Node
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Blob, Net, in_graph
from ristretto_cli.ops import AnyArray, Array, Shape, show
from ristretto_cli.scoring.comparisons import Comparison
from ristretto_cli.scoring.host_layers import Runner, host_losses, total_loss
from ristretto_cli.scoring.metrics import loss_weights, measures, metrics_of, scored
from ristretto_cli.scoring.scores import Output, Scores
from ristretto_cli.scoring.step_timer import StepTimer

log = logging.getLogger("ristretto")

OnBatch = Callable[[int, int, str], None]  # batches done, batches in total, the label of the run

TOTAL_LOSS = "@total_loss"  # the name of the weighted sum of all losses


def ignore_progress(done: int, total: int, label: str) -> None:
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
    label: str = "",
    on_batch: OnBatch = ignore_progress,
    timer: StepTimer | None = None,
    keep_going: Callable[[], bool] = lambda: True,
) -> Iterator[dict[str, Array]]:
    """The results of `iterations` batches, one after another.

    on_batch: called with `label` after each batch. timer: measures reading and running. keep_going: called before each
    batch; the run ends when it returns False.
    """
    timer = timer or StepTimer()
    for i in range(iterations):
        if not keep_going():
            return
        with timer.measure("reading data"):
            batch = source.next()
        with timer.measure("running"):
            results = runner.run(batch)
        on_batch(i + 1, iterations, label)
        yield results


class ScoredOutputs:
    """The outputs of a net that have a score: means over the batches, metrics, and the loss.

    blobs: the outputs; by default all with a score. Raises RistrettoError if there are none. comparisons: further
    scores; then the outputs are by default the net's measures, if it has any, since the means of predictions say
    nothing.
    """

    def __init__(self, net: Net, blobs: Sequence[Blob] | None = None, comparisons: Sequence[Comparison] = ()) -> None:
        self.comparisons = comparisons
        if blobs is None:
            blobs = measures(net) if comparisons else scored(net)
        self.blobs = blobs
        self.metrics = metrics_of(net)
        self.averaged = [blob for blob in self.blobs if blob.name not in self.metrics]
        self.weights = loss_weights(net)
        self.host_losses = host_losses(net)

    @property
    def on_host(self) -> list[str]:
        """The blobs that host layers compute, by name."""
        scored_there = (blob.name for blob in self.averaged if blob.on_host)
        return list(dict.fromkeys([*self.metrics, *scored_there, *self.host_losses]))

    def select(self, run: Run[Node]) -> dict[str, Node]:
        """The values of a run that the scores need, by blob name; the loss is called TOTAL_LOSS."""
        picked = {blob.name: run.final[blob.name] for blob in in_graph(self.averaged)}
        picked.update({each.blob: run.final[each.blob] for each in self.comparisons})
        return picked if run.loss is None else {**picked, TOTAL_LOSS: run.loss}


class Tally:
    """The sums of the scored outputs over the batches so far, except those whose shapes differ. dtype: of the sums."""

    def __init__(self, outputs: ScoredOutputs, dtype: Any = np.float64) -> None:
        self.done = 0
        self.sums: dict[str, AnyArray] = {}
        self._outputs = outputs
        self._dtype = dtype
        self._averaged = {blob.name: dtype for blob in outputs.averaged}
        self._averaged.update((each.name, np.float64) for each in outputs.comparisons)
        self._shapes: dict[str, Shape] = {}
        self._metric_tops: dict[str, list[Array]] = {name: [] for name in outputs.metrics}
        self._loss = dtype(0)

    def add(self, results: Mapping[str, Array]) -> None:
        """Add the results of a batch."""
        for name, kind in list(self._averaged.items()):
            array = results[name]
            if array.shape != self._shapes.setdefault(name, array.shape):
                first = show(self._shapes[name])
                log.info("%s is %s, but %s in the first batch, and has no score.", name, show(array.shape), first)
                del self._averaged[name], self.sums[name]
                continue
            if name not in self.sums:
                self.sums[name] = np.zeros(array.size, kind)
            self.sums[name] += array.ravel()
        for name, tops in self._metric_tops.items():
            tops.append(results[name])
        self._loss += self._dtype(total_loss(results, self._outputs.host_losses, TOTAL_LOSS))
        self.done += 1

    def scores(self, metric_options: MetricOptions) -> Scores:
        """The scores of the batches so far, at least one."""
        weights, done = self._outputs.weights, self._dtype(self.done)
        found = {name: Output(name, weights.get(name, 0.0), total / done) for name, total in self.sums.items()}
        for name, (metric, layer) in self._outputs.metrics.items():
            value = metric.compute(layer, self._metric_tops[name], metric_options)
            found[name] = Output(name, 0.0, np.array([value.value]), value.parts)
        compared = [
            Output(each.name, 0.0, np.array([each.score(self.sums[each.name], self.done)]), may_be_infinite=True)
            for each in self._outputs.comparisons
        ]
        outputs = (*(found[blob.name] for blob in self._outputs.blobs if blob.name in found), *compared)
        return Scores(outputs, float(self._loss / done), self.done)
