"""A net on onnxruntime: its graph, compiled once and run for successive batches, and its host layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.exact_kernels import NONE, exact_kernels
from ristretto_cli.backends.graph_passes.graph_pass import Target
from ristretto_cli.backends.onnx import Graph, Node, OnnxOps
from ristretto_cli.backends.onnx_lower import ANYWHERE, Lowered, lower
from ristretto_cli.backends.onnx_session import Session, has_blocks
from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import ResumePoint, Run, forward, state_shapes
from ristretto_cli.net.ir import Blob, Net, in_graph
from ristretto_cli.ops import DYNAMIC, AnyArray, Array, Shape, show
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.guarded import BOUND, GuardedRunner
from ristretto_cli.scoring.host_layers import HostLayers, PostProcessingRunner, Runner, host_layers
from ristretto_cli.scoring.net_profile import NetProfiler
from ristretto_cli.scoring.reshaping import ReshapingRunner, SplitRunner

log = logging.getLogger("ristretto")

# Selects the results to compute, by name; with the ops it can add nodes.
Select: TypeAlias = Callable[[Run[Node], OnnxOps], Mapping[str, Node]]


def record(net: Net, *, rng: np.random.Generator) -> tuple[OnnxOps, Run[Node]]:
    """The net as an ONNX graph, and the values of its run. Inputs are named like the blobs."""
    ops = OnnxOps(rng)
    return ops, _record(net, ops, {}, rng)[0]


def target_of(execution: Execution, *, guarded: bool = False) -> Target:
    """What the passes may use on a device. Only onnxruntime's CPU kernels for integers are exact.

    guarded: assume that inputs are finite and values in the range of their formats; see GuardedRunner.
    """
    bound = BOUND if guarded else None
    if execution.gpu is not None:
        return Target(NONE, has_blocks=False, bound_of_inputs=bound, assumes_in_range=guarded)
    return Target(exact_kernels(), has_blocks=has_blocks(), bound_of_inputs=bound, assumes_in_range=guarded)


@dataclass(frozen=True)
class CutPoint:
    """A point from which a net can resume with the activations of another pass.

    layer: the position of the first layer to run. activations: the blobs of earlier layers that are still read, by
    names that are not those of blobs. inputs: the names of the net's inputs that are still read.
    """

    layer: int
    activations: Mapping[str, Blob]
    inputs: frozenset[str]


def _record(
    net: Net, ops: OnnxOps, shapes: Mapping[str, Shape], rng: np.random.Generator, cut_point: CutPoint | None = None
) -> tuple[Run[Node], dict[str, Node]]:
    """The net's run, and the inputs for its states, which have these shapes."""
    for blob in in_graph(net.inputs):
        if DYNAMIC in blob.shape:
            what = f'the input "{blob.name}" ({show(blob.shape)}) has a variable number of items'
            raise RistrettoError(f"{what}, so layers can read it only while the net runs", where=net.file)
    feeds = {blob.name: ops.input(blob.name, blob.shape) for blob in in_graph(net.inputs)}
    states = {key: ops.input(_free(f"state {key}", feeds), shape) for key, shape in shapes.items()}
    resume_from = None
    if cut_point is not None:
        activations = cut_point.activations.items()
        resume_from = ResumePoint(
            cut_point.layer, {blob.storage: ops.input(name, blob.shape) for name, blob in activations}
        )
    return forward(net, ops, feeds, rng=rng, states=states, resume_from=resume_from), states


def graph_outputs(net: Net, run: Run[Node]) -> dict[str, Node]:
    """The graph's outputs, by name: the net's, and the blobs that host layers read to compute the others."""
    outputs = {blob.name: run.final[blob.name] for blob in in_graph(net.outputs)}
    inputs = {blob.name for blob in net.inputs}
    for i, layer in host_layers(net, [blob.name for blob in net.outputs if blob.on_host]):
        for blob, value in zip(in_graph(layer.bottoms), run.inputs[i], strict=True):
            if value.name not in inputs:
                outputs.setdefault(blob.name, value)
    return outputs


class StatefulSession(Session):
    """A Session of a net with layers that keep a state: each run starts from the final states of the previous one.

    states: for each state, by any name, its input and its new value. memory: holds the states, so that another session
    can resume from them; states that it already has are where this session starts.
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
        # Names of states must differ from those of the outputs.
        self._inputs = {_free(f"state {key}", outputs): value for key, (value, _) in states.items()}
        updated = dict(zip(self._inputs, (new for _, new in states.values()), strict=True))
        super().__init__(graph, {**outputs, **updated}, gpu=execution.gpu, threads=execution.threads, profiler=profiler)
        self._memory = {} if memory is None else memory
        for key, value in self._inputs.items():
            self._memory.setdefault(key, np.zeros(value.shape, np.float32))

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        states = {value.name: self._memory[key] for key, value in self._inputs.items()}
        results = super().run({**feeds, **states})
        self._memory.update((key, results.pop(key)) for key in self._inputs)
        return results


def compile_net(
    net: Net,
    select: Select,
    *,
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    on_host: Collection[str] = (),
    cut_point: CutPoint | None = None,
    memory: dict[str, Array] | None = None,
    profiler: NetProfiler | None = None,
) -> Runner:
    """A runner for the selected values and for the blobs `on_host`, which host layers compute, by name.

    It takes batches of any shapes that fit the net, and compiles it for each. Layers that keep a state continue from
    the previous run. cut_point: where to resume; no host layer precedes it, and its activations have the net's shapes.
    memory: see StatefulSession. profiler: records the time of each part of a run.
    """
    if memory is None and state_shapes(net):
        memory = {}
    compile_it = partial(compile_net, execution=execution, cut_point=cut_point, profiler=profiler)
    split = next((i for i, layer in enumerate(net.layers) if layer.feeds_graph), None)
    if split is not None:
        front, rest = _split(net, split)
        tops = [top.name for top in front.layers[-1].tops]
        copied = None if memory is None else dict(memory)
        first = compile_it(front, lambda run, ops: {}, rng=deepcopy(rng), on_host=tops, memory=copied)
        return SplitRunner(first, compile_it(rest, select, rng=rng, on_host=on_host, memory=memory), copied, memory)
    after_graph = host_layers(net, on_host)
    # Host layers may count the batches, so each must run once, for all shapes and outside the GuardedRunner.
    layers = HostLayers(net, [layer for _, layer in after_graph], None if profiler is None else profiler.start)
    guarded = bool(execution.passes) and _is_quantized(net) and not state_shapes(net)
    compile_graph = partial(_Graph.compile, execution=execution, memory=memory, profiler=profiler)

    def compile_shapes(net: Net, rng: np.random.Generator) -> Runner:
        record_graph = partial(
            _record_graph, net, select, [i for i, _ in after_graph], execution=execution, cut_point=cut_point
        )
        same_rng = deepcopy(rng)
        graph = record_graph(rng, guarded=guarded)
        runner: Runner | None = None
        if graph.lowered.outputs:
            runner = compile_graph(graph)
            if guarded:
                runner = GuardedRunner(runner, lambda: compile_graph(record_graph(same_rng)), guard=graph.guard)
        if runner is not None and not on_host:
            return runner
        return PostProcessingRunner(runner, layers, graph.host_bottoms, on_host)

    return ReshapingRunner(net, compile_shapes, rng=rng)


def _split(net: Net, position: int) -> tuple[Net, Net]:
    """The net up to a host layer, and the net in which the tops of that layer are inputs."""
    layer = net.layers[position]
    tops = tuple(replace(top, on_host=True) for top in layer.tops)
    before = net.layers[:position]
    inputs = tuple(top for each in before if each.is_source for top in each.tops)
    front = replace(net, layers=(*before, replace(layer, tops=tops)), inputs=inputs, outputs=())
    given = replace(layer, is_source=True, on_host=False)
    rest = replace(net, layers=(*before, given, *net.layers[position + 1 :]), inputs=(*net.inputs, *layer.tops))
    return front, rest


def _is_quantized(net: Net) -> bool:
    return any(not layer.is_source and LAYERS.get(layer.type).quantized for layer in net.layers)


@dataclass(frozen=True)
class _Graph:
    """The recorded graph of a net.

    states: for each state, its input and its new value. host_bottoms: for each host layer, the names of its bottoms
    that are in the graph. guard: the name of the output that tells whether the graph is valid for a batch, if any.
    """

    lowered: Lowered
    states: dict[str, tuple[Node, Node]]
    host_bottoms: list[list[str]]
    guard: str | None

    def compile(
        self, *, execution: Execution, memory: dict[str, Array] | None, profiler: NetProfiler | None
    ) -> Session:
        graph, outputs = self.lowered.graph, self.lowered.outputs
        if self.states:
            return StatefulSession(graph, outputs, self.states, execution=execution, memory=memory, profiler=profiler)
        return Session(graph, outputs, gpu=execution.gpu, threads=execution.threads, profiler=profiler)


def _record_graph(
    net: Net,
    select: Select,
    host_positions: Sequence[int],
    rng: np.random.Generator,
    *,
    execution: Execution,
    cut_point: CutPoint | None,
    guarded: bool = False,
) -> _Graph:
    """The graph of the selected values. host_positions: of the host layers. guarded: a graph that may assume what a
    GuardedRunner checks."""
    ops = OnnxOps(rng)
    run, states = _record(net, ops, state_shapes(net), rng, cut_point)
    outputs = dict(select(run, ops))
    host_bottoms = [[_free(f"{i} bottom {k}", outputs) for k, _ in enumerate(run.inputs[i])] for i in host_positions]
    for names, i in zip(host_bottoms, host_positions, strict=True):
        outputs.update(zip(names, run.inputs[i], strict=True))
    updated = {_free(f"state {key}", outputs): run.states[key] for key in states}
    target = target_of(execution, guarded=guarded) if execution.passes else ANYWHERE
    lowered = lower(ops.graph, {**outputs, **updated}, execution.passes, target)
    new_states = {key: (states[key], lowered.outputs.pop(name)) for key, name in zip(states, updated, strict=True)}
    guard = None
    if lowered.guard is not None:
        guard = _free("guard", lowered.outputs)
        lowered.outputs[guard] = lowered.guard
    return _Graph(lowered, new_states, host_bottoms, guard)


def _free(name: str, taken: Mapping[str, object]) -> str:
    """A name that is not taken; blobs may have any name."""
    while name in taken:
        name = f"@{name}"
    return name


def log_device(gpu: int | None) -> None:
    """Log the device that nets run on, in Caffe's words."""
    log.info("%s", "Use CPU." if gpu is None else f"Use GPU with device ID {gpu}")
