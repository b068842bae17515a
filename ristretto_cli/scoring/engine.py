"""A net on onnxruntime: its graph compiled once, then run batch after batch, with what stands behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.net.forward import Run, forward, state_shapes
from ristretto_cli.net.ir import Net, in_graph
from ristretto_cli.ops import AnyArray, Array, Shape
from ristretto_cli.scoring.host import Host, HostedRunner, Runner, host_layers

log = logging.getLogger("ristretto")

# What a caller wants to see of a run, by the names of its choice; the ops let it add nodes of its own.
Select: TypeAlias = Callable[[Run[Node], OnnxOps], Mapping[str, Node]]


def record(net: Net, *, rng: np.random.Generator) -> tuple[OnnxOps, Run[Node]]:
    """The net as an ONNX graph, and the values of its run there. The inputs have the blobs' names."""
    ops, run, _ = _record(net, {}, rng)
    return ops, run


def _record(
    net: Net, shapes: Mapping[str, Shape], rng: np.random.Generator
) -> tuple[OnnxOps, Run[Node], dict[str, Node]]:
    """The graph, its run, and the inputs for the states of these shapes."""
    ops = OnnxOps(rng)
    feeds = {blob.name: ops.input(blob.name, blob.shape) for blob in in_graph(net.inputs)}
    states = {key: ops.input(_free(f"state {key}", feeds), shape) for key, shape in shapes.items()}
    return ops, forward(net, ops, feeds, rng=rng, states=states), states


def what_leaves(net: Net, run: Run[Node]) -> dict[str, Node]:
    """The graph's outputs, by name: the net's, and what layers behind the graph read to make the rest of them."""
    leaving = {blob.name: run.end[blob.name] for blob in in_graph(net.outputs)}
    inputs = {blob.name for blob in net.inputs}
    for i, layer in host_layers(net, [blob.name for blob in net.outputs if blob.on_host]):
        for blob, value in zip(in_graph(layer.bottoms), run.read[i], strict=True):
            if value.name not in inputs:
                leaving.setdefault(blob.name, value)
    return leaving


class CarryingSession(Session):
    """A Session of a net some of whose layers keep a state: what one run leaves is what the next one starts from.

    states: the input and the new value of each, by any names.
    """

    def __init__(
        self,
        ops: OnnxOps,
        outputs: Mapping[str, Node],
        states: Mapping[str, tuple[Node, Node]],
        *,
        gpu: int | None = None,
    ) -> None:
        # Keys of two kinds cannot meet: states are behind a name that is no output's.
        self._inputs = {_free(f"state {key}", outputs): value for key, (value, _) in states.items()}
        fresh = dict(zip(self._inputs, (new for _, new in states.values()), strict=True))
        super().__init__(ops.graph, {**outputs, **fresh}, gpu=gpu)
        self._kept = {key: np.zeros(value.shape, np.float32) for key, value in self._inputs.items()}

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        kept = {self._inputs[key].name: array for key, array in self._kept.items()}
        results = super().run({**feeds, **kept})
        self._kept = {key: results.pop(key) for key in self._inputs}
        return results


def compile_net(
    net: Net, select: Select, *, rng: np.random.Generator, gpu: int | None = None, on_host: Collection[str] = ()
) -> Runner:
    """What computes the values that select picks, and those blobs on_host, which the graph does not have, by name.

    Layers that keep a state go on in each run where the last one ended.
    """
    ops, run, states = _record(net, state_shapes(net), rng)
    picked = dict(select(run, ops))
    behind = host_layers(net, on_host)
    handed = [[_free(f"{i} bottom {k}", picked) for k, _ in enumerate(run.read[i])] for i, _ in behind]
    for names, (i, _) in zip(handed, behind, strict=True):
        picked.update(zip(names, run.read[i], strict=True))
    if not on_host:
        return _session(ops, run, states, picked, gpu)
    graph = _session(ops, run, states, picked, gpu) if picked else None
    return HostedRunner(graph, Host(net, [layer for _, layer in behind]), handed, on_host)


def _session(
    ops: OnnxOps, run: Run[Node], states: Mapping[str, Node], picked: Mapping[str, Node], gpu: int | None
) -> Session:
    if not states:
        return Session(ops.graph, picked, gpu=gpu)
    return CarryingSession(ops, picked, {key: (states[key], run.states[key]) for key in states}, gpu=gpu)


def _free(name: str, taken: Mapping[str, object]) -> str:
    """A name that is not taken: blobs may be called anything."""
    while name in taken:
        name = f"@{name}"
    return name


def log_device(gpu: int | None) -> None:
    """Tell what nets run on, in Caffe's words."""
    log.info("%s", "Use CPU." if gpu is None else f"Use GPU with device ID {gpu}")
