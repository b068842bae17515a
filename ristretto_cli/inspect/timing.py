"""How long a net takes, as a whole and layer by layer.

The whole net is one graph, as it is when it is scored: onnxruntime joins layers in it (a ReLU with the
convolution before it), so that no layer has a time of its own there. Therefore each layer is timed as a graph of
its own, which makes their sum larger than the whole. Layers behind the graph are no part of the whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.onnx import Graph, Node, OnnxOps
from ristretto_cli.errors import RistrettoError
from ristretto_cli.inspect.bound_session import BoundSession, DeviceValue, to_device
from ristretto_cli.net.forward import forward
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.ops import VARIES, Array
from ristretto_cli.scoring.engine import record
from ristretto_cli.scoring.host import start
from ristretto_cli.sources.open import open_source

log = logging.getLogger("ristretto")

Clock: TypeAlias = Callable[[], float]  # seconds from some time on
OpenSession: TypeAlias = Callable[[Graph, Mapping[str, Node]], BoundSession]
OnRun: TypeAlias = Callable[[int, int, str], None]  # how many are done, of how many, of what


@dataclass(frozen=True)
class Timing:
    """Mean milliseconds: of each layer, by position in the net, and of a forward pass.

    zeros: the inputs that had no data and were all zeros.
    """

    iterations: int
    layers: tuple[tuple[str, float], ...]
    forward_ms: float
    zeros: tuple[str, ...]

    @property
    def total_ms(self) -> float:
        """Milliseconds of all forward passes together."""
        return self.forward_ms * self.iterations


def time_net(
    net: Net,
    iterations: int,
    *,
    without_data: Collection[str] = (),
    rng: np.random.Generator,
    gpu: int | None = None,
    threads: int = 0,
    on_run: OnRun = lambda done, total, what: None,
    clock: Clock = perf_counter,
) -> Timing:
    """Time a net with its weights over `iterations` (1 or more) forward passes, and then each layer as often.

    without_data: the names of data layers that are not to be read, since their shapes were made up; their tops, and
    those of layers that are fed by the user, are all zeros. RistrettoError for data that cannot be read.
    """
    stopwatch = _Stopwatch(iterations, on_run, clock)
    feeds, times, zeros = _read(net, without_data, stopwatch)
    on_host = {blob.name for blob in net.inputs if blob.on_host}
    values = {name: to_device(array, None if name in on_host else gpu) for name, array in feeds.items()}
    open_session = partial(BoundSession, gpu=gpu, threads=threads)
    forward_ms = _time_whole(net, feeds, values, stopwatch, rng, open_session)
    times.update(_time_layers(net, values, stopwatch, rng, open_session))
    log.info("*** Benchmark ends ***")
    layers = tuple((layer.name, times[i]) for i, layer in enumerate(net.layers))
    return Timing(iterations, layers, forward_ms, zeros)


def timing_lines(timing: Timing) -> list[str]:
    """What was measured, in Caffe's words where it has them."""
    zeros = [f"Not read, but all zeros: {', '.join(timing.zeros)}."] if timing.zeros else []
    return [
        *zeros,
        "Each layer is timed alone, as a graph of its own; for a data layer it is the time to read a batch.",
        "Average time per layer: ",
        *(f"{name:>10}\tforward: {milliseconds:g} ms." for name, milliseconds in timing.layers),
        "The forward pass is the whole net as one graph, in which layers are joined; reading data is not part of it.",
        f"Average Forward pass: {timing.forward_ms:g} ms.",
        f"Total Time: {timing.total_ms:g} ms.",
    ]


@dataclass(frozen=True)
class _Stopwatch:
    iterations: int
    on_run: OnRun
    clock: Clock

    def measure(self, call: Callable[[], object], what: str, *, tell: bool = False) -> float:
        """The mean milliseconds of a call over all iterations."""
        total = 0.0
        for i in range(self.iterations):
            start = self.clock()
            call()
            seconds = self.clock() - start
            total += seconds
            if tell:
                log.info("Iteration: %d forward time: %g ms.", i + 1, seconds * 1000)
            self.on_run(i + 1, self.iterations, what)
        return total * 1000 / self.iterations


def _read(
    net: Net, without_data: Collection[str], stopwatch: _Stopwatch
) -> tuple[dict[str, Array], dict[int, float], tuple[str, ...]]:
    """A batch for each input, the milliseconds that reading one took, by the layer's position, and which are zeros."""
    feeds: dict[str, Array] = {}
    times: dict[int, float] = {}
    zeros: list[str] = []
    for i, layer in enumerate(net.layers):
        if not layer.is_source:
            continue
        batch = None if layer.name in without_data else _batches(layer, stopwatch)
        if batch is None:
            zeros += [top.name for top in layer.tops]
            shapes = [[0 if n == VARIES else n for n in top.shape] for top in layer.tops]
            batch = tuple(np.zeros(shape, np.float32) for shape in shapes), 0.0
        arrays, times[i] = batch
        feeds.update({top.name: array for top, array in zip(layer.tops, arrays, strict=True)})
    return feeds, times, tuple(zeros)


def _batches(layer: Layer, stopwatch: _Stopwatch) -> tuple[tuple[Array, ...], float] | None:
    """The first batch of a data layer, and the milliseconds that one takes; None where the user has to bring it."""
    try:
        source = open_source(layer.message, layer.phase)
        try:
            return None if source.fed else (source.next(), stopwatch.measure(source.next, layer.name))
        finally:
            source.close()
    except RistrettoError as error:
        raise RistrettoError(f'layer "{layer.name}" ({layer.type}): {error}', where=layer.where) from error


def _time_whole(
    net: Net,
    feeds: Mapping[str, Array],
    values: Mapping[str, DeviceValue],
    stopwatch: _Stopwatch,
    rng: np.random.Generator,
    open_session: OpenSession,
) -> float:
    ops, run = record(net, rng=rng)
    ends = [run.end[blob.name] for blob in in_graph(net.outputs)]
    # What is only silenced, or is read behind the graph, is computed all the same.
    ends += [v for layer, read in zip(net.layers, run.read, strict=True) if not in_graph(layer.tops) for v in read]
    wanted = {node.name: node for node in ends if node.name not in ops.graph.inputs}
    if not wanted:
        return 0.0
    if run.loss is not None:
        wanted["@total_loss"] = run.loss
    session = open_session(ops.graph, wanted)
    log.info("Performing Forward")
    first = session.run(feeds)
    log.info("Initial loss: %g", float(first["@total_loss"]) if "@total_loss" in first else 0.0)
    session.bind(values)
    session.run_bound()
    log.info("*** Benchmark begins ***")
    log.info("Testing for %d iterations.", stopwatch.iterations)
    return stopwatch.measure(session.run_bound, "forward", tell=True)


def _time_layers(
    net: Net,
    values: Mapping[str, DeviceValue],
    stopwatch: _Stopwatch,
    rng: np.random.Generator,
    open_session: OpenSession,
) -> dict[int, float]:
    """The mean milliseconds of each layer that is no data layer, by its position."""
    last_use = {blob.storage: i for i, layer in enumerate(net.layers) for blob in (*layer.bottoms, *layer.tops)}
    memory: dict[int, DeviceValue] = {}  # what the places of ir.Blob.storage hold
    times: dict[int, float] = {}
    for i, layer in enumerate(net.layers):
        if layer.is_source:
            tops = [values[top.name] for top in layer.tops]
        elif layer.on_host:
            tops, times[i] = _time_host_layer(layer, memory, stopwatch)
        else:
            tops, times[i] = _time_layer(net, layer, memory, stopwatch, rng, open_session)
        memory.update({top.storage: value for top, value in zip(layer.tops, tops, strict=True)})
        for storage in [storage for storage in memory if last_use[storage] <= i]:
            del memory[storage]
    return times


def _time_layer(
    net: Net,
    layer: Layer,
    memory: Mapping[int, DeviceValue],
    stopwatch: _Stopwatch,
    rng: np.random.Generator,
    open_session: OpenSession,
) -> tuple[list[DeviceValue], float]:
    """A layer's tops, and the mean milliseconds that they take; 0 where they are its bottoms."""
    ops = OnnxOps()
    feeds: dict[str, Node] = {}
    values: dict[str, DeviceValue] = {}
    bottoms: dict[str, Blob] = {}
    for blob in layer.bottoms:
        name = f"in{blob.storage}"
        if name not in bottoms:  # of two bottoms in one place, one is enough
            bottoms[name] = replace(blob, name=name)
            values[name] = memory[blob.storage]
            feeds[name] = ops.input(name, tuple(values[name].shape()))
    source = Layer("bottoms", "Input", layer.phase, layer.message, (), tuple(bottoms.values()), is_source=True)
    alone = replace(net, layers=(_without_losses(source), _without_losses(layer)))
    written = forward(alone, ops, feeds, rng=rng).written[-1]
    kept = {node.name: values[name] for name, node in feeds.items()}
    wanted = {node.name: node for node in written if node.name not in kept}
    if not wanted:
        return [kept[node.name] for node in written], 0.0
    session = open_session(ops.graph, wanted)
    session.bind(values)
    made = session.run_bound()
    milliseconds = stopwatch.measure(session.run_bound, layer.name)
    return [kept[node.name] if node.name in kept else made[node.name] for node in written], milliseconds


def _time_host_layer(
    layer: Layer, memory: Mapping[int, DeviceValue], stopwatch: _Stopwatch
) -> tuple[list[DeviceValue], float]:
    """What _time_layer tells, for a layer behind the graph: its tops are in the CPU's memory."""
    if not layer.tops:
        return [], 0.0
    compute = start(layer)
    arrays = [(blob, memory[blob.storage].numpy()) for blob in layer.bottoms]
    bottoms = [array if blob.on_host else array.reshape(blob.shape) for blob, array in arrays]
    milliseconds = stopwatch.measure(lambda: compute(bottoms), layer.name)
    return [to_device(top, None) for top in compute(bottoms)], milliseconds


def _without_losses(layer: Layer) -> Layer:
    return replace(layer, loss_weights=(0.0,) * len(layer.tops))
