"""Scoring a net: the mean of each of its outputs over some batches, told as Caffe tells it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.layers.host_layer import Judging, JudgingLayer
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.ops import VARIES, AnyArray, Array, show
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.feeds import Feeds

log = logging.getLogger("ristretto")

OnBatch = Callable[[int, int, str], None]  # batches done, batches in all, what is being run

_LOSS = "@total_loss"  # no blob can be called so in a graph of ours: blobs keep their names


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
    how: Judging | None = None,
) -> Scores:
    """Run `iterations` batches (1 or more), from the first record on, and average each output, or judge it.

    single_precision: sum up in float32, as the original does. Outputs with as many values as the data makes have no
    mean: those that no layer judges are left out. Raises RistrettoError for a net without outputs.
    """
    weights = _loss_weights(net)
    judges = _judges(net)
    averaged = [blob for blob in scored(net) if blob.name not in judges]
    _tell_unscored(net)

    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        picked = {blob.name: run.end[blob.name] for blob in in_graph(averaged)}
        return picked if run.loss is None else {**picked, _LOSS: run.loss}

    on_host = [*judges, *(blob.name for blob in averaged if blob.on_host)]
    session = compile_net(net, select, rng=rng, gpu=gpu, on_host=on_host)
    dtype: Any = np.float32 if single_precision else np.float64
    sums = {blob.name: np.zeros(blob.shape, dtype).ravel() for blob in averaged}
    judged: dict[str, list[Array]] = {name: [] for name in judges}
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
            for name, tops in judged.items():
                tops.append(results[name])
            loss += results.get(_LOSS, 0)
            on_batch(i + 1, iterations, what)
    means = {name: Output(name, weights.get(name, 0.0), total / dtype(iterations)) for name, total in sums.items()}
    verdicts = {name: judge.judge(layer, judged[name], how or Judging()) for name, (judge, layer) in judges.items()}
    of_verdicts = {name: Output(name, 0.0, np.array([v.value]), v.parts) for name, v in verdicts.items()}
    outputs = tuple({**means, **of_verdicts}[blob.name] for blob in scored(net))
    scores = Scores(outputs, float(loss / dtype(iterations)), iterations)
    for line in score_lines(scores):
        log.info("%s", line)
    for output in outputs:
        if not np.isfinite(output.means).all():
            log.warning("%s is NaN or infinite: no score of this net can be trusted", output.blob)
    return scores


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


def default_score(net: Net) -> str:
    """The blob by which a net is judged where none is named: the top of its first Accuracy layer, or what is judged."""
    outputs = [blob.name for blob in scored(net)]
    for layer in net.layers:
        if layer.type == "Accuracy" and layer.tops[0].name in outputs:
            return layer.tops[0].name
    judged = [name for name in _judges(net) if name in outputs]
    if judged:
        return judged[0]
    raise RistrettoError(
        "the net has no Accuracy output to score by",
        where=net.file,
        remedy=f"Name one of its outputs with --score: {', '.join(outputs)}.",
    )


def check_score(net: Net, blob: str) -> str:
    """The blob's name if it is an output of the net that has a score; else RistrettoError with those that are."""
    outputs = [output.name for output in scored(net)]
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


def scored(net: Net) -> list[Blob]:
    """The outputs that have a score, one or more, sorted by name; RistrettoError where there are none."""
    judges = _judges(net)
    found = [blob for blob in net.outputs if VARIES not in blob.shape or blob.name in judges]
    if not found:
        raise RistrettoError("the net has no outputs to score", where=net.file)
    return found


def _tell_unscored(net: Net) -> None:
    has_score = {blob.name for blob in scored(net)}
    for blob in net.outputs:
        if blob.name not in has_score:
            log.info("%s (%s) has as many items as the data makes: it has no score.", blob.name, show(blob.shape))


def _judges(net: Net) -> dict[str, tuple[JudgingLayer, Layer]]:
    """The layers that judge an output in whole, by its name, in the net's order."""
    outputs = {blob.name for blob in net.outputs}
    behind = [(LAYERS.get(layer.type), layer) for layer in net.layers if layer.on_host]
    return {
        layer.tops[0].name: (layer_type, layer)
        for layer_type, layer in behind
        if isinstance(layer_type, JudgingLayer) and layer.tops[0].name in outputs
    }


def _loss_weights(net: Net) -> dict[str, float]:
    return {
        blob.name: weight for layer in net.layers for blob, weight in zip(layer.tops, layer.loss_weights, strict=True)
    }
