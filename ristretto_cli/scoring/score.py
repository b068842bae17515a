"""Scoring a net: the mean of each of its outputs over some batches, told as Caffe tells it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.feeds import Feeds

log = logging.getLogger("ristretto")

OnBatch = Callable[[int, int, str], None]  # batches done, batches in all, what is being run

_LOSS = "@total_loss"  # no blob can be called so in a graph of ours: blobs keep their names


def ignore_progress(done: int, total: int, what: str) -> None:
    """An OnBatch that does nothing."""


@dataclass(frozen=True)
class Output:
    """An output blob's mean over all batches, flat; weight: its loss weight, 0 where it is no loss."""

    blob: str
    weight: float
    means: AnyArray

    @property
    def score(self) -> float:
        """The blob as one number: the mean of its elements."""
        return float(self.means.mean())


@dataclass(frozen=True)
class Scores:
    """What scoring a net gave. loss: the mean weighted sum of its losses."""

    outputs: tuple[Output, ...]
    loss: float
    iterations: int

    def of(self, blob: str) -> float:
        """The score of one output."""
        return next(output.score for output in self.outputs if output.blob == blob)


def score_net(
    net: Net,
    iterations: int,
    *,
    rng: np.random.Generator,
    gpu: int | None = None,
    what: str = "scoring",
    on_batch: OnBatch = ignore_progress,
    single_precision: bool = False,
) -> Scores:
    """Run `iterations` batches (1 or more), from the first record on, and average each output.

    single_precision: sum up in float32, as the original does. Raises RistrettoError for a net without outputs.
    """
    weights = _loss_weights(net)
    _check_outputs(net)

    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        picked = {blob.name: run.end[blob.name] for blob in net.outputs}
        return picked if run.loss is None else {**picked, _LOSS: run.loss}

    session = compile_net(net, select, rng=rng, gpu=gpu)
    dtype: Any = np.float32 if single_precision else np.float64
    sums = {blob.name: np.zeros(blob.shape, dtype).ravel() for blob in net.outputs}
    loss = dtype(0)
    log.info("Running for %d iterations.", iterations)
    with Feeds(net) as feeds:
        for i in range(iterations):
            results = session.run(feeds.next())
            for name, total in sums.items():
                values = results[name].ravel()
                total += values
                for value in values.tolist():
                    log.info("Batch %d, %s = %s", i, name, number(value))
            loss += results.get(_LOSS, 0)
            on_batch(i + 1, iterations, what)
    outputs = tuple(
        Output(blob.name, weights.get(blob.name, 0.0), sums[blob.name] / dtype(iterations)) for blob in net.outputs
    )
    scores = Scores(outputs, float(loss / dtype(iterations)), iterations)
    for line in score_lines(scores):
        log.info("%s", line)
    for output in outputs:
        if not np.isfinite(output.means).all():
            log.warning("%s is NaN or infinite: no score of this net can be trusted", output.blob)
    return scores


def score_lines(scores: Scores) -> list[str]:
    """The means as Caffe's test prints them, one line each."""
    lines = [f"Loss: {number(scores.loss)}"]
    for output in scores.outputs:
        for mean in output.means:
            weighted = f" (* {number(output.weight)} = {number(output.weight * mean)} loss)"
            lines.append(f"{output.blob} = {number(mean)}{weighted if output.weight else ''}")
    return lines


def scores_as_json(scores: Scores) -> dict[str, Any]:
    """The loss and the means of each output, for JSON."""
    return {
        "loss": scores.loss,
        "outputs": {output.blob: [float(mean) for mean in output.means] for output in scores.outputs},
    }


def number(value: float) -> str:
    """A number with six significant digits, as C++ streams print it."""
    return format(float(value), "g")


def default_score(net: Net) -> str:
    """The blob by which a net is judged where none is named: the top of its first Accuracy layer."""
    _check_outputs(net)
    outputs = [blob.name for blob in net.outputs]
    for layer in net.layers:
        if layer.type == "Accuracy" and layer.tops[0].name in outputs:
            return layer.tops[0].name
    raise RistrettoError(
        "the net has no Accuracy output to score by",
        where=net.file,
        remedy=f"Name one of its outputs with --score: {', '.join(outputs)}.",
    )


def check_score(net: Net, blob: str) -> str:
    """The blob's name if it is an output of the net; else RistrettoError with those that are."""
    _check_outputs(net)
    outputs = [output.name for output in net.outputs]
    if blob not in outputs:
        near = did_you_mean(blob, outputs)
        raise RistrettoError(
            f'"{blob}" is no output of the net',
            where=net.file,
            remedy=f"{near} Outputs: {', '.join(outputs)}.",
        )
    return blob


def is_loss(net: Net, blob: str) -> bool:
    """Whether less of a blob is better: it has a loss weight, or a loss layer makes it that has none.

    A negative weight is one for what training is to make large.
    """
    for layer in net.layers:
        for i, (top, weight) in enumerate(zip(layer.tops, layer.loss_weights, strict=True)):
            if top.name == blob:
                return weight > 0 or (
                    weight == 0 and i == 0 and layer.type in LAYERS and LAYERS.get(layer.type).is_loss
                )
    return False


def _check_outputs(net: Net) -> None:
    if not net.outputs:
        raise RistrettoError("the net has no outputs to score", where=net.file)


def _loss_weights(net: Net) -> dict[str, float]:
    return {
        blob.name: weight for layer in net.layers for blob, weight in zip(layer.tops, layer.loss_weights, strict=True)
    }
