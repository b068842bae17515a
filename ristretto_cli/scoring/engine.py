"""A net on onnxruntime: its graph compiled once, then run batch after batch, with what stands behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.graph_passes.graph_pass import Target
from ristretto_cli.backends.onnx import Graph, Node, OnnxOps
from ristretto_cli.backends.onnx_kernels import NONE, exact_kernels
from ristretto_cli.backends.onnx_lower import ANYWHERE, Lowered, lower
from ristretto_cli.backends.onnx_session import Session, has_blocks
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run, Start, forward, state_shapes
from ristretto_cli.net.ir import Blob, Net, in_graph
from ristretto_cli.ops import AnyArray, Array, Shape
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.guarded import BOUND, AssumingRunner
from ristretto_cli.scoring.host_layers import Host, HostedRunner, Runner, host_layers
from ristretto_cli.scoring.profile import NetProfiler

log = logging.getLogger("ristretto")

# What a caller wants to see of a run, by the names of its choice; the ops let it add nodes of its own.
Select: TypeAlias = Callable[[Run[Node], OnnxOps], Mapping[str, Node]]


def record(net: Net, *, rng: np.random.Generator) -> tuple[OnnxOps, Run[Node]]:
    """The net as an ONNX graph, and the values of its run there. The inputs have the blobs' names."""
    ops = OnnxOps(rng)
    return ops, _record(net, ops, {}, rng)[0]


def target_of(execution: Execution, *, guarded: bool = False) -> Target:
    """What the passes may use on a device: exact integer kernels are those of onnxruntime's CPU provider.

    guarded: assume that inputs are finite and values in the range of their formats; see GuardedRunner.
    """
    bound = BOUND if guarded else None
    if execution.gpu is not None:
        return Target(NONE, has_blocks=False, bound_of_inputs=bound, assumes_in_range=guarded)
    return Target(exact_kernels(), has_blocks=has_blocks(), bound_of_inputs=bound, assumes_in_range=guarded)


@dataclass(frozen=True)
class Cut:
    """A place in a net from which it can be run on what was kept of another pass.

    layer: the position of the first layer that is run. kept: what its graph is fed in place of what stands before: for
    names that are no blob's, the blobs whose places in memory are still to be read. inputs: those of the net that are.
    """

    layer: int
    kept: Mapping[str, Blob]
    inputs: frozenset[str]


def _record(
    net: Net, ops: OnnxOps, shapes: Mapping[str, Shape], rng: np.random.Generator, cut: Cut | None = None
) -> tuple[Run[Node], dict[str, Node]]:
    """The net's run, and the inputs for the states of these shapes."""
    feeds = {blob.name: ops.input(blob.name, blob.shape) for blob in in_graph(net.inputs)}
    states = {key: ops.input(_free(f"state {key}", feeds), shape) for key, shape in shapes.items()}
    start = None
    if cut is not None:
        start = Start(cut.layer, {blob.storage: ops.input(name, blob.shape) for name, blob in cut.kept.items()})
    return forward(net, ops, feeds, rng=rng, states=states, start=start), states


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

    states: the input and the new value of each, by any names. memory: where they are kept, for a session that is to go
    on where this one ends; what it holds already is where this one begins.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Mapping[str, Node],
        states: Mapping[str, tuple[Node, Node]],
        *,
        execution: Execution,
        memory: dict[str, Array] | None = None,
        profiler: NetProfiler | None = None,
    ) -> None:
        # Keys of two kinds cannot meet: states are behind a name that is no output's.
        self._inputs = {_free(f"state {key}", outputs): value for key, (value, _) in states.items()}
        fresh = dict(zip(self._inputs, (new for _, new in states.values()), strict=True))
        super().__init__(graph, {**outputs, **fresh}, gpu=execution.gpu, threads=execution.threads, profiler=profiler)
        self._kept = {} if memory is None else memory
        for key, value in self._inputs.items():
            self._kept.setdefault(key, np.zeros(value.shape, np.float32))

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        kept = {value.name: self._kept[key] for key, value in self._inputs.items()}
        results = super().run({**feeds, **kept})
        self._kept.update((key, results.pop(key)) for key in self._inputs)
        return results


def compile_net(
    net: Net,
    select: Select,
    *,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    on_host: Collection[str] = (),
    cut: Cut | None = None,
    memory: dict[str, Array] | None = None,
    profiler: NetProfiler | None = None,
) -> Runner:
    """What computes the values that select picks, and those blobs on_host, which the graph does not have, by name.

    Layers that keep a state go on in each run where the last one ended. cut: where to begin; no layer behind the graph
    stands before it. memory: as CarryingSession says. profiler: is told how long the parts of each run take.
    """
    behind = host_layers(net, on_host)
    pick = partial(_pick, net, select, [i for i, _ in behind], execution=execution, cut=cut)
    make_ready = partial(_Picked.session, execution=execution, memory=memory, profiler=profiler)
    assuming = bool(execution.passes) and _trims(net) and not state_shapes(net)
    same = deepcopy(rng)
    picked = pick(rng, assuming=assuming)
    runner: Runner | None = None
    if picked.lowered.outputs:
        runner = make_ready(picked)
        if assuming:
            runner = AssumingRunner(runner, lambda: make_ready(pick(same)), peak=picked.guard)
    if runner is not None and not on_host:
        return runner
    # Behind what makes sure of assumptions: layers behind the graph may count the batches that they see.
    host = Host(net, [layer for _, layer in behind], None if profiler is None else profiler.start)
    return HostedRunner(runner, host, picked.handed, on_host)


def _trims(net: Net) -> bool:
    return any(not layer.is_source and LAYERS.get(layer.type).trims for layer in net.layers)


@dataclass(frozen=True)
class _Picked:
    """A net's graph, and what is picked of it.

    states: for each state the input and the new value. handed: for each host layer, the names of those of
    its bottoms that are in the graph. guard: the output that tells whether assumptions hold, if there are any.
    """

    lowered: Lowered
    states: dict[str, tuple[Node, Node]]
    handed: list[list[str]]
    guard: str | None

    def session(
        self, *, execution: Execution, memory: dict[str, Array] | None, profiler: NetProfiler | None
    ) -> Session:
        """It made ready to run."""
        graph, outputs = self.lowered.graph, self.lowered.outputs
        if self.states:
            return CarryingSession(graph, outputs, self.states, execution=execution, memory=memory, profiler=profiler)
        return Session(graph, outputs, gpu=execution.gpu, threads=execution.threads, profiler=profiler)


def _pick(
    net: Net,
    select: Select,
    behind: Sequence[int],
    rng: np.random.Generator,
    *,
    execution: Execution,
    cut: Cut | None,
    assuming: bool = False,
) -> _Picked:
    """What select picks of the graph. behind: the positions of host layers. assuming: as AssumingRunner says; of
    the fast graph alone."""
    ops = OnnxOps(rng)
    run, states = _record(net, ops, state_shapes(net), rng, cut)
    outputs = dict(select(run, ops))
    handed = [[_free(f"{i} bottom {k}", outputs) for k, _ in enumerate(run.read[i])] for i in behind]
    for names, i in zip(handed, behind, strict=True):
        outputs.update(zip(names, run.read[i], strict=True))
    fresh = {_free(f"state {key}", outputs): run.states[key] for key in states}
    fast = bool(execution.passes)
    target = target_of(execution, guarded=assuming) if fast else ANYWHERE
    lowered = lower(ops.graph, {**outputs, **fresh}, execution.passes, target)
    new_states = {key: (states[key], lowered.outputs.pop(name)) for key, name in zip(states, fresh, strict=True)}
    guard = None
    if lowered.guard is not None:
        guard = _free("guard", lowered.outputs)
        lowered.outputs[guard] = lowered.guard
    return _Picked(lowered, new_states, handed, guard)


def _free(name: str, taken: Mapping[str, object]) -> str:
    """A name that is not taken: blobs may be called anything."""
    while name in taken:
        name = f"@{name}"
    return name


def log_device(gpu: int | None) -> None:
    """Tell what nets run on, in Caffe's words."""
    log.info("%s", "Use CPU." if gpu is None else f"Use GPU with device ID {gpu}")
