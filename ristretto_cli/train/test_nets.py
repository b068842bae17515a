"""Tests during training: nets scored on onnxruntime with the current weights, as by `ristretto test`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array, show
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.evaluation import ScoredOutputs, Tally, run_batches
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.scores import Scores


class Tester:
    """A test net. Layers with the name of a layer of the trained net use its weights; the others use their own.

    The data and the states of layers continue where the last test ended, as in Caffe. A context manager, which closes
    the files. RistrettoError(s) if a shared layer has parameters of different shapes.
    """

    def __init__(
        self,
        net: Net,
        trained: Net,
        iterations: int,
        *,
        rng: np.random.Generator,
        execution: Execution = DEFAULT,
        seed: int = 0,
        metric_options: MetricOptions | None = None,
    ) -> None:
        self.net = net
        self.iterations = iterations
        self._shared = _shared(net, trained)
        self._shapes = {param.key: param.shape for layer in reversed(net.layers) for param in layer.params}
        self._rng = rng
        self._execution = execution
        self._metric_options = metric_options or MetricOptions()
        self._batches = DataLoader(net, seed=seed)
        self._memory: dict[str, Array] = {}
        self._outputs = ScoredOutputs(net, None if net.outputs else ())

    def run(self, weights: Mapping[str, Array], keep_going: Callable[[], bool] = lambda: True) -> Scores | None:
        """The scores with these weights of the trained net, by Param.key; None if interrupted.

        keep_going: called before each batch; the test is interrupted when it returns False.
        """
        if not self.iterations:
            return Scores((), 0.0, 0)
        own = {key: weights[theirs].reshape(self._shapes[key]) for key, theirs in self._shared.items()}
        net = replace(self.net, weights={**self.net.weights, **own})
        runner = compile_net(
            net,
            self._select,
            rng=self._rng,
            execution=self._execution,
            memory=self._memory,
            on_host=self._outputs.on_host,
        )
        tally = Tally(self._outputs)
        for results in run_batches(runner, self._batches, self.iterations, keep_going=keep_going):
            tally.add(results)
        return tally.scores(self._metric_options) if tally.done == self.iterations else None

    def close(self) -> None:
        """Close the files."""
        self._batches.close()

    def __enter__(self) -> Tester:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _select(self, run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
        return self._outputs.select(run)


def _shared(net: Net, trained: Net) -> dict[str, str]:
    """The keys of the parameters that a test net shares with the trained net, by their keys in the test net."""
    known = {layer.name: layer for layer in trained.layers}
    shared: dict[str, str] = {}
    errors = []
    for layer in net.layers:
        other = known.get(layer.name)
        if other is None:
            continue
        ours, theirs = ([param.shape for param in each.params] for each in (layer, other))
        if ours != theirs:
            what = f"has parameters {_shapes(ours)} in the test net, but {_shapes(theirs)} in the training net"
            errors.append(RistrettoError(f'layer "{layer.name}" {what}', where=layer.where))
            continue
        shared.update({ours.key: theirs.key for ours, theirs in zip(layer.params, other.params, strict=True)})
    raise_all(errors)
    return shared


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(show(shape) for shape in shapes) or "none"
