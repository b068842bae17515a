"""Testing a net while it learns: scored on onnxruntime with the present weights, as `ristretto test` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.layers.host_layer import Judging
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net, in_graph
from ristretto_cli.ops import Array, show
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.feeds import Feeds
from ristretto_cli.scoring.outputs import judges_of, loss_weights, scored

_LOSS = "@total_loss"


@dataclass(frozen=True)
class Tested:
    """What a test found: each output's name, loss weight and means, in Caffe's order, and the mean loss."""

    outputs: tuple[tuple[str, float, tuple[float, ...]], ...]
    loss: float


class Tester:
    """A test net: what stands in both it and the net that learns has that one's weights, the rest its own, which it
    brings along.

    Its data and what its layers keep go on where the last test ended, as in Caffe. threads: 0 for the default. Use
    it as a context manager: it closes the files. RistrettoError(s) where a layer of both has other parameters here.
    """

    def __init__(
        self,
        net: Net,
        learning: Net,
        iterations: int,
        *,
        rng: np.random.Generator,
        gpu: int | None = None,
        threads: int = 0,
        seed: int = 0,
        how: Judging | None = None,
    ) -> None:
        self.net = net
        self.iterations = iterations
        self._shared = _shared(net, learning)
        self._shapes = {param.key: param.shape for layer in reversed(net.layers) for param in layer.params}
        self._rng = rng
        self._gpu = gpu
        self._threads = threads
        self._how = how or Judging()
        self._feeds = Feeds(net, seed=seed)
        self._memory: dict[str, Array] = {}
        self._judges = judges_of(net)
        self._averaged = [blob for blob in scored(net) if blob.name not in self._judges] if net.outputs else []

    def run(self, weights: Mapping[str, Array], go_on: Callable[[], bool] = lambda: True) -> Tested | None:
        """Score the net with the weights of the one that learns, by its Param.key. go_on is asked in front of each
        batch; if it says no, there is no result."""
        if not self.iterations:
            return Tested((), 0.0)
        own = {key: weights[theirs].reshape(self._shapes[key]) for key, theirs in self._shared.items()}
        net = replace(self.net, weights={**self.net.weights, **own})
        runner = compile_net(
            net,
            self._select,
            rng=self._rng,
            gpu=self._gpu,
            threads=self._threads,
            memory=self._memory,
            on_host=[*self._judges, *(blob.name for blob in self._averaged if blob.on_host)],
        )
        sums = {blob.name: np.zeros(blob.shape).ravel() for blob in self._averaged}
        judged: dict[str, list[Array]] = {name: [] for name in self._judges}
        loss = 0.0
        for _ in range(self.iterations):
            if not go_on():
                return None
            results = runner.run(self._feeds.next())
            for name, total in sums.items():
                total += results[name].ravel()
            for name, tops in judged.items():
                tops.append(results[name])
            loss += float(results.get(_LOSS, 0))
        means = {name: tuple(float(mean) for mean in total / self.iterations) for name, total in sums.items()}
        for name, (judge, layer) in self._judges.items():
            means[name] = (judge.judge(layer, judged[name], self._how).value,)
        weights_of = loss_weights(self.net)
        outputs = tuple((blob.name, weights_of.get(blob.name, 0.0), means[blob.name]) for blob in scored(self.net))
        return Tested(outputs, loss / self.iterations)

    def close(self) -> None:
        """Close the files."""
        self._feeds.close()

    def __enter__(self) -> Tester:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _select(self, run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
        picked = {blob.name: run.end[blob.name] for blob in in_graph(self._averaged)}
        return picked if run.loss is None else {**picked, _LOSS: run.loss}


def _shared(net: Net, learning: Net) -> dict[str, str]:
    """The keys of the parameters that a test net has of the net that learns, by the keys they have here."""
    known = {layer.name: layer for layer in learning.layers}
    shared: dict[str, str] = {}
    errors = []
    for layer in net.layers:
        other = known.get(layer.name)
        if other is None:
            continue
        ours, theirs = ([param.shape for param in each.params] for each in (layer, other))
        if ours != theirs:
            what = f"has parameters {_shapes(ours)} in the test net, and {_shapes(theirs)} in the one that learns"
            errors.append(RistrettoError(f'layer "{layer.name}" {what}', where=layer.where))
            continue
        shared.update({ours.key: theirs.key for ours, theirs in zip(layer.params, other.params, strict=True)})
    raise_all(errors)
    return shared


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(show(shape) for shape in shapes) or "none"
