"""A training as the command line asks for it: what `ristretto train` does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ristretto_cli.backends import onnx_session
from ristretto_cli.backends.gpu import GpuRequest, GpuUnusable, choose_gpu
from ristretto_cli.caffe_io.net_file import read_solver
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.formats.number_format import layer_formats
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Net
from ristretto_cli.net.param_formats import param_formats
from ristretto_cli.net.trimmed_weights import trimmed_weights
from ristretto_cli.scoring.scores import number
from ristretto_cli.train import log_lines
from ristretto_cli.train.job import Job, opened, resume, save
from ristretto_cli.train.signals import Request, Requests, listening
from ristretto_cli.train.snapshot import model_file, prepare_snapshots, state_file, write_model
from ristretto_cli.train.solver import Solver
from ristretto_cli.train.solver_settings import Settings, settings_of, split_files
from ristretto_cli.train.statistics import warn_of_old_statistics
from ristretto_cli.train.torch_import import device_of, import_torch, probe, use_threads

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class Launch:
    """What the command line says. weights: files, separated by commas, in place of the solver's; not with snapshot.

    gpu: None stands for what the solver file asks for. sigint, sighup: the signals' effects. threads: 0 for the
    default. level: None for the solver's. trimmed_weights: each snapshot has a third file, ..._trimmed.caffemodel, with
    the weights on the grids of their layers.
    """

    solver: str
    weights: str | None = None
    snapshot: str | None = None
    gpu: GpuRequest = field(default_factory=GpuRequest)
    level: int | None = None
    stages: tuple[str, ...] = ()
    sigint: Request = Request.STOP
    sighup: Request = Request.SNAPSHOT
    threads: int = 0
    trim_activations: bool = False
    round_to_nearest: bool = False
    trimmed_weights: bool = False
    metric_options: MetricOptions = field(default_factory=MetricOptions)


@dataclass(frozen=True)
class Outcome:
    """How a training ended. loss: as displayed last, if there was an iteration. tests: the last test
    of each test net, its outputs' means.

    model, state: the files of the last snapshot, if there was one.
    """

    iteration: int
    finished: bool
    loss: float | None
    tests: tuple[dict[str, list[float]], ...]
    model: str | None
    state: str | None

    def lines(self) -> list[str]:
        """It in a few lines."""
        lines = [] if self.loss is None else [f"Iteration {self.iteration}, loss = {number(self.loss)}"]
        for i, outputs in enumerate(self.tests):
            net = f" (#{i})" if len(self.tests) > 1 else ""
            lines += [f"{name}{net} = {number(mean)}" for name, means in outputs.items() for mean in means]
        return [*lines, *([f"Weights: {self.model}", f"State: {self.state}"] if self.model else [])]

    def as_json(self, solver: str) -> dict[str, Any]:
        """It as JSON."""
        return {
            "solver": solver,
            "iteration": self.iteration,
            "stopped_early": not self.finished,
            "loss": self.loss,
            "tests": list(self.tests),
            "model": self.model,
            "state": self.state,
        }


def run(launch: Launch, on_iteration: Callable[[int, int], None] = lambda done, total: None) -> Outcome:
    """Train. RistrettoError(s) for whatever is wrong with the files or the machine; in the main thread alone."""
    file = read_solver(launch.solver)
    settings = settings_of(file, level=launch.level, stages=launch.stages)
    if launch.snapshot is not None:
        settings = replace(settings, weights=())
    elif launch.weights is not None:
        settings = replace(settings, weights=tuple(split_files([launch.weights])))
    if settings.snapshots.interval or settings.snapshots.after_train:
        prepare_snapshots(settings.snapshots)
    import_torch()
    use_threads(launch.threads)
    gpu = choose_gpu(_requested(launch, settings), probe)
    log.info("%s", log_lines.CPU if gpu is None else log_lines.gpus([gpu]))

    saver = _Saver(launch.trimmed_weights)
    requests = Requests(launch.sigint, launch.sighup)
    job = Job(
        file,
        settings,
        device=device_of(gpu),
        gpu=_gpu_for_tests(gpu) if settings.tests.nets else None,
        threads=launch.threads,
        trim_activations=launch.trim_activations,
        round_to_nearest=launch.round_to_nearest,
        metric_options=launch.metric_options,
        write=saver,
        request=requests,
        on_iteration=on_iteration,
    )
    with opened(job) as solver:
        _check_trimming(launch, solver.net.net)
        if launch.snapshot is not None:
            log.info("%s", log_lines.resuming(launch.snapshot))
            resume(solver, launch.snapshot)
        elif settings.weights:
            warn_of_old_statistics(solver.net.net, settings.max_iter * settings.rule.iter_size)
        log.info("%s", log_lines.STARTING)
        with listening(requests):
            finished = solver.run()
        log.info("%s", log_lines.DONE)
        return _outcome(solver, finished, saver.iteration)


def _check_trimming(launch: Launch, net: Net) -> None:
    """RistrettoError for flags about trimming where the net has nothing of that kind to trim."""
    trims = [trim for layer in net.layers for trim in param_formats(layer) if trim is not None]
    params = "no layer trims its parameters"
    faults = [
        (launch.trim_activations, "--trim_activations", "no layer trims activations", _trims_activations(net)),
        (launch.round_to_nearest, "--round_to_nearest", params, bool(trims)),
        (launch.trimmed_weights, "--trimmed_weights", params, bool(trims)),
    ]
    raise_all(
        RistrettoError(
            f"{flag} has no effect: {why}", where=net.file, hint=f"Leave {flag} out, or train a trimmed net."
        )
        for asked, flag, why, has_effect in faults
        if asked and not has_effect
    )


def _trims_activations(net: Net) -> bool:
    trimmed = [layer for layer in net.layers if not layer.is_source and LAYERS.get(layer.type).quantized]
    trims = [layer_formats(layer.message.quantization_param) for layer in trimmed]
    return any(trim.layer_in is not None or trim.layer_out is not None for trim in trims)


class _Saver:
    """Saves a solver, with trimmed weights if wanted; iteration: of the last snapshot, None before there is one."""

    def __init__(self, with_trimmed: bool) -> None:
        self._with_trimmed = with_trimmed
        self.iteration: int | None = None

    def __call__(self, solver: Solver) -> None:
        save(solver)
        self.iteration = solver.iteration
        if self._with_trimmed:
            net = solver.net.net
            model = model_file(solver.settings.snapshots, solver.iteration)
            path = model.replace(".caffemodel", "_trimmed.caffemodel")
            log.info("%s", log_lines.writing_model(path))
            write_model(path, net, trimmed_weights(net, solver.weights(), rng=np.random.default_rng(0)))


def _outcome(solver: Solver, finished: bool, saved: int | None) -> Outcome:
    snapshots = solver.settings.snapshots
    return Outcome(
        iteration=solver.iteration,
        finished=finished,
        loss=solver.loss,
        tests=tuple(
            {output.blob: output.means.tolist() for output in scores.outputs}
            for _, scores in sorted(solver.tested.items())
        ),
        model=None if saved is None else model_file(snapshots, saved),
        state=None if saved is None else state_file(snapshots, saved),
    )


def _requested(launch: Launch, settings: Settings) -> GpuRequest:
    """The command line's request for a GPU, or else the solver file's."""
    if launch.gpu.number is not None or settings.gpu is None:
        return launch.gpu
    return replace(launch.gpu, number=settings.gpu, source=f"solver_mode: GPU in {launch.solver}")


def _gpu_for_tests(gpu: int | None) -> int | None:
    """The GPU for test nets, which onnxruntime scores; the CPU where onnxruntime cannot use the one that trains."""
    if gpu is None:
        return None
    try:
        onnx_session.probe(gpu)
    except GpuUnusable as fault:
        log.warning("Test nets are scored on the CPU, which computes the same: %s", fault)
        return None
    return gpu
