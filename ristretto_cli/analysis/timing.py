"""Timing of a net: the forward pass of `test`, and the share of each layer.

First the unmodified pass is measured. Then the same graph runs under onnxruntime's profiler, which times each
kernel; a kernel's time is attributed to the layer that it computes. Profiling takes time, so profiled passes
are slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

import numpy as np

from ristretto_cli.analysis.kernel_layers import Shares
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import DYNAMIC, Array
from ristretto_cli.scoring.evaluation import TOTAL_LOSS
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.host_layers import host_losses, total_loss
from ristretto_cli.scoring.net_profile import NetProfiler
from ristretto_cli.scoring.score import scoring_runner
from ristretto_cli.sources.open import open_source

log = logging.getLogger("ristretto")

_MAX_KERNELS = 30_000  # in one profile; each is about a kilobyte of JSON

Clock: TypeAlias = Callable[[], float]  # seconds from some time on
OnRun: TypeAlias = Callable[[int, int, str], None]  # done, total, what


@dataclass(frozen=True)
class LayerTime:
    """Mean milliseconds of a layer, for its kernels or for reading a batch.

    has_kernels: whether onnxruntime ran any for it. within: the layer whose kernels compute this one, if
    known.
    """

    name: str
    milliseconds: float
    reads_data: bool = False
    has_kernels: bool = True
    within: str | None = None


@dataclass(frozen=True)
class Timing:
    """Mean milliseconds of a forward pass, without reading data, and of its parts.

    others_ms: kernels of no layer. profiled_ms: a profiled pass. forward_ms: one without profiling. zeros: the
    inputs without data, which were all zeros.
    """

    iterations: int
    layers: tuple[LayerTime, ...]
    others_ms: float
    profiled_ms: float
    forward_ms: float
    zeros: tuple[str, ...]
    on_gpu: bool = False

    @property
    def total_ms(self) -> float:
        """Milliseconds of all forward passes together."""
        return self.forward_ms * self.iterations

    @property
    def outside_ms(self) -> float:
        """The time of a profiled pass outside kernels and layers."""
        layers = sum(layer.milliseconds for layer in self.layers if not layer.reads_data)
        return self.profiled_ms - self.others_ms - layers


def time_net(
    net: Net,
    iterations: int,
    *,
    without_data: Collection[str] = (),
    rng: np.random.Generator,
    execution: Execution = DEFAULT,
    on_run: OnRun = lambda done, total, what: None,
    clock: Clock = perf_counter,
) -> Timing:
    """Time a net with its weights over `iterations` (1 or more) forward passes, and then as many with a profile.

    For large graphs fewer passes are profiled. without_data: the names of data layers that must not be read, because
    their shapes were made up; their tops, and those of layers without data of their own, are all zeros. RistrettoError
    for data that cannot be read, and for a net without outputs.
    """
    timer = _LayerTimer(on_run, clock)
    feeds, reading, zeros = _read(net, without_data, timer, iterations)
    same = deepcopy(rng)
    forward_ms = _time_passes(net, feeds, timer, iterations, rng, execution)
    profile = _profile(net, feeds, timer, iterations, same, execution)
    log.info("*** Benchmark ends ***")
    layers, seen = [], set()
    for i, layer in enumerate(net.layers):
        if layer.is_source:
            layers.append(LayerTime(layer.name, reading[i], reads_data=True))
            continue
        # Nodes have the names of layers: of several layers with the same name, the first gets the time of all.
        time = None if layer.name in seen else profile.layers_ms.get(layer.name)
        within = None if time is not None else profile.within.get(layer.name)
        layers.append(LayerTime(layer.name, time or 0.0, has_kernels=time is not None, within=within))
        seen.add(layer.name)
    return Timing(
        iterations,
        tuple(layers),
        profile.others_ms,
        profile.pass_ms,
        forward_ms,
        zeros,
        on_gpu=execution.gpu is not None,
    )


def timing_lines(timing: Timing) -> list[str]:
    """The measurements, in the format of caffe time where it has them."""
    zeros = [f"Zeros instead of data: {', '.join(timing.zeros)}."] if timing.zeros else []
    on_gpu = "On a GPU, kernel times are launch times; waiting for kernels counts as time outside kernels."
    within = [f"{layer.name} ({layer.within})" for layer in timing.layers if layer.within is not None]
    idle = [layer.name for layer in timing.layers if not layer.has_kernels and layer.within is None]
    return [
        *zeros,
        "Layer times are kernel times from onnxruntime's profiler; for data layers, the time to read a batch.",
        *([on_gpu] if timing.on_gpu else []),
        "Average time per layer: ",
        *(f"{layer.name:>10}\tforward: {layer.milliseconds:g} ms." for layer in timing.layers),
        *([f"Computed by kernels of another layer: {', '.join(within)}."] if within else []),
        *([f"Without kernels of their own: {', '.join(idle)}."] if idle else []),
        f"Kernels not attributed to a layer: {timing.others_ms:g} ms. Time outside kernels: {timing.outside_ms:g} ms.",
        f"Profiled pass, without reading data: {timing.profiled_ms:g} ms. Without profiling:",
        f"Average Forward pass: {timing.forward_ms:g} ms.",
        f"Total Time: {timing.total_ms:g} ms.",
    ]


@dataclass(frozen=True)
class _LayerTimer:
    on_run: OnRun
    clock: Clock

    def measure(self, call: Callable[[], object], what: str, times: int, *, log_each: bool = False) -> float:
        """The mean milliseconds of a call."""
        total = 0.0
        for i in range(times):
            start = self.clock()
            call()
            seconds = self.clock() - start
            total += seconds
            if log_each:
                log.info("Iteration: %d forward time: %g ms.", i + 1, seconds * 1000)
            self.on_run(i + 1, times, what)
        return total * 1000 / times


def _read(
    net: Net, without_data: Collection[str], timer: _LayerTimer, iterations: int
) -> tuple[dict[str, Array], dict[int, float], tuple[str, ...]]:
    """A batch for each input, the milliseconds to read one, by the layer's position, and the inputs that are zeros."""
    feeds: dict[str, Array] = {}
    times: dict[int, float] = {}
    zeros: list[str] = []
    for i, layer in enumerate(net.layers):
        if not layer.is_source:
            continue
        batch = None if layer.name in without_data else _batches(layer, timer, iterations)
        if batch is None:
            zeros += [top.name for top in layer.tops]
            shapes = [[0 if n == DYNAMIC else n for n in top.shape] for top in layer.tops]
            batch = tuple(np.zeros(shape, np.float32) for shape in shapes), 0.0
        arrays, times[i] = batch
        feeds.update({top.name: array for top, array in zip(layer.tops, arrays, strict=True)})
    return feeds, times, tuple(zeros)


def _batches(layer: Layer, timer: _LayerTimer, iterations: int) -> tuple[tuple[Array, ...], float] | None:
    """The first batch of a data layer, and the milliseconds to read one; None if the user must supply it."""
    try:
        source = open_source(layer.message, layer.phase)
        try:
            return None if source.is_external else (source.next(), timer.measure(source.next, layer.name, iterations))
        finally:
            source.close()
    except RistrettoError as error:
        raise RistrettoError(f'layer "{layer.name}" ({layer.type}): {error}', where=layer.where) from error


def _time_passes(
    net: Net,
    feeds: Mapping[str, Array],
    timer: _LayerTimer,
    iterations: int,
    rng: np.random.Generator,
    execution: Execution,
) -> float:
    runner = scoring_runner(net, rng=rng, execution=execution)
    log.info("Performing Forward")
    first = runner.run(feeds)
    log.info("Initial loss: %g", total_loss(first, host_losses(net), TOTAL_LOSS))
    log.info("*** Benchmark begins ***")
    log.info("Testing for %d iterations.", iterations)
    return timer.measure(lambda: runner.run(feeds), "forward", iterations, log_each=True)


@dataclass(frozen=True)
class _Profile:
    """Mean milliseconds: of a profiled pass, of layers by name, of the rest. within: see Shares."""

    pass_ms: float
    layers_ms: Mapping[str, float]
    others_ms: float
    within: Mapping[str, str]


def _profile(
    net: Net,
    feeds: Mapping[str, Array],
    timer: _LayerTimer,
    iterations: int,
    rng: np.random.Generator,
    execution: Execution,
) -> _Profile:
    profiler = NetProfiler()
    with profiler:
        runner = scoring_runner(net, rng=rng, execution=execution, profiler=profiler)
        runner.run(feeds)
        profiler.begin()
        runs = max(1, min(iterations, _MAX_KERNELS // max(1, profiler.nodes)))
        pass_ms = timer.measure(lambda: runner.run(feeds), "layers", runs)
        shares = Shares()
        names = {layer.name for layer in net.layers}
        for nodes, kernels in profiler.kernels():
            shares.add(names, nodes, kernels)
        milliseconds = {name: each / 1000 for name, each in shares.layers.items()}
        milliseconds.update(profiler.host_ms)
    layers = {name: each / runs for name, each in milliseconds.items()}
    return _Profile(pass_ms, layers, shares.others / 1000 / runs, shares.within)
