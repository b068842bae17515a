"""Training by a configuration, the work of `ristretto train`, and its result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ristretto_cli.backends import onnx_session
from ristretto_cli.backends.device_choice import GpuRequest, GpuUnusable, choose_gpu
from ristretto_cli.caffe_io.named_weights import named_weights, rename_weights
from ristretto_cli.caffe_io.net_file import SolverFile, read_solver
from ristretto_cli.caffe_io.weights import split_files
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Net
from ristretto_cli.net.param_formats import param_formats
from ristretto_cli.net.trimmed_weights import trimmed_weights
from ristretto_cli.scoring.scores import number
from ristretto_cli.train import log_lines
from ristretto_cli.train.prepare import TrainingSetup, open_solver, resume, save
from ristretto_cli.train.signals import Request, Requests, listening
from ristretto_cli.train.snapshot import model_file, prepare_snapshots, state_file, trimmed_file, write_model
from ristretto_cli.train.solver import Solver
from ristretto_cli.train.solver_settings import SolverSettings, settings_of
from ristretto_cli.train.stale_statistics import warn_of_stale_statistics
from ristretto_cli.train.torch_import import device_of, import_torch, probe, use_threads

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class TrainConfig:
    """The options of a training. weights: comma-separated files instead of the solver's; not with snapshot.

    gpu: without a number, the device of the solver file. sigint, sighup, sigterm: the effects of the signals; None:
    SIGTERM ends the process. threads: 0 for the default. level: None for the solver's. trimmed_weights: write a third
    file with each snapshot, ..._trimmed.caffemodel, with the weights quantized as their layers use them.
    rename_weights: name the last snapshot in the header of the net's file.
    """

    solver: str
    weights: str | None = None
    snapshot: str | None = None
    gpu: GpuRequest = field(default_factory=GpuRequest)
    level: int | None = None
    stages: tuple[str, ...] = ()
    sigint: Request = Request.STOP
    sighup: Request = Request.SNAPSHOT
    sigterm: Request | None = None
    threads: int = 0
    trim_activations: bool = False
    round_to_nearest: bool = False
    update_quantized: bool = False
    trimmed_weights: bool = False
    rename_weights: bool = False
    metric_options: MetricOptions = field(default_factory=MetricOptions)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training. loss: as last displayed; None if there was no iteration. tests: the means of the
    outputs in the last test of each test net. model, state: the files of the last snapshot, if there was one. net: the
    trained net, of phase TRAIN.
    """

    iteration: int
    finished: bool
    loss: float | None
    tests: tuple[dict[str, list[float]], ...]
    model: str | None
    state: str | None
    net: Net | None = None

    def lines(self) -> list[str]:
        """The result as lines of text."""
        lines = [] if self.loss is None else [f"Iteration {self.iteration}, loss = {number(self.loss)}"]
        for i, outputs in enumerate(self.tests):
            net = f" (#{i})" if len(self.tests) > 1 else ""
            lines += [f"{name}{net} = {number(mean)}" for name, means in outputs.items() for mean in means]
        return [*lines, *([f"Weights: {self.model}", f"State: {self.state}"] if self.model else [])]

    def as_json(self, solver: str) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "solver": solver,
            "iteration": self.iteration,
            "stopped_early": not self.finished,
            "loss": self.loss,
            "tests": list(self.tests),
            "model": self.model,
            "state": self.state,
        }


def run(config: TrainConfig, on_iteration: Callable[[int, int], None] = lambda done, total: None) -> TrainingResult:
    """Train. RistrettoError(s) for errors in the files or of the machine. Only for the main thread."""
    file = read_solver(config.solver)
    settings = settings_of(file, level=config.level, stages=config.stages)
    if config.snapshot is not None:
        settings = replace(settings, weights=())
    elif config.weights is not None:
        settings = replace(settings, weights=tuple(split_files([config.weights])))
    on_request = Request.SNAPSHOT in (config.sigint, config.sigterm)
    if settings.snapshots.interval or settings.snapshots.after_train or on_request:
        prepare_snapshots(settings.snapshots, settings.max_iter, trimmed=config.trimmed_weights)
    named = _named_weights(file, settings)
    if config.rename_weights and named is None:
        raise RistrettoError(
            "--rename_weights has no effect: the trained net is not a file that names weights in its header",
            where=config.solver,
            hint="Omit --rename_weights, or train a net that quantize wrote.",
        )
    import_torch()
    use_threads(config.threads)
    gpu = choose_gpu(_requested(config, settings), probe)
    log.info("%s", log_lines.CPU if gpu is None else log_lines.gpus([gpu]))

    saver = _Saver(config.trimmed_weights)
    requests = Requests(config.sigint, config.sighup, config.sigterm)
    setup = TrainingSetup(
        file,
        settings,
        device=device_of(gpu),
        gpu=_gpu_for_tests(gpu) if settings.tests.nets else None,
        threads=config.threads,
        trim_activations=config.trim_activations,
        round_to_nearest=config.round_to_nearest,
        update_quantized=config.update_quantized,
        metric_options=config.metric_options,
        write=saver,
        request=requests,
        on_iteration=on_iteration,
    )
    with open_solver(setup) as solver:
        _check_quantization_flags(config, solver.net.net)
        if config.snapshot is not None:
            log.info("%s", log_lines.resuming(config.snapshot))
            resume(solver, config.snapshot)
        elif settings.weights:
            warn_of_stale_statistics(solver.net.net, settings.max_iter * settings.rule.iter_size)
        log.info("%s", log_lines.STARTING)
        with listening(requests):
            finished = solver.run()
        log.info("%s", log_lines.DONE)
        result = _result(solver, finished, saver.iteration)
    if named is not None and result.model is not None:
        _tell_of_weights(*named, result.model, rename=config.rename_weights)
    return result


def _named_weights(solver: SolverFile, settings: SolverSettings) -> tuple[str, str] | None:
    """The file of the trained net, and the weights in its header; None if it names none."""
    if settings.train.field.endswith("_param"):
        return None
    model = str(getattr(solver.message, settings.train.field))
    weights = named_weights(model)
    return None if weights is None else (model, weights)


def _tell_of_weights(model: str, weights: str, trained: str, *, rename: bool) -> None:
    """Log which weights `test` scores with the net, or name the trained ones in its header."""
    if rename:
        rename_weights(model, trained)
        log.info("The header of %s now names %s.", model, trained)
    elif not (Path(weights).exists() and Path(weights).samefile(trained)):
        log.info(
            "The header of %s still names %s, which `ristretto test` scores. Give --weights %s to score the trained "
            "ones; `ristretto train --rename_weights` names them in the header.",
            model,
            weights,
            trained,
        )


def _check_quantization_flags(config: TrainConfig, net: Net) -> None:
    """RistrettoError for quantization flags that have no effect on the net."""
    formats = [each.number_format for layer in net.layers for each in param_formats(layer) if each is not None]
    has_params = any(each.elementwise for each in formats)
    no_params = "no layer quantizes its parameters" + (" one by one" if formats else "")
    faults = [
        (config.trim_activations, "--trim_activations", "no layer quantizes activations", _quantizes_activations(net)),
        (config.update_quantized, "--update=quantized", no_params, has_params),
        (config.round_to_nearest, "--round_to_nearest", no_params, has_params),
        (config.trimmed_weights, "--trimmed_weights", no_params, has_params),
    ]
    raise_all(
        RistrettoError(f"{flag} has no effect: {why}", where=net.file, hint=f"Omit {flag}, or train a quantized net.")
        for given, flag, why, has_effect in faults
        if given and not has_effect
    )


def _quantizes_activations(net: Net) -> bool:
    layers = [layer for layer in net.layers if not layer.is_source and LAYERS.get(layer.type).quantized]
    formats = [LAYERS.get(layer.type).formats(layer.message) for layer in layers]
    return any(each.layer_in is not None or each.layer_out is not None for each in formats)


class _Saver:
    """Saves snapshots, with trimmed weights if wanted. iteration: of the last snapshot, None if there is none."""

    def __init__(self, with_trimmed: bool) -> None:
        self._with_trimmed = with_trimmed
        self.iteration: int | None = None

    def __call__(self, solver: Solver) -> None:
        save(solver)
        self.iteration = solver.iteration
        if self._with_trimmed:
            net = solver.net.net
            path = trimmed_file(solver.settings.snapshots, solver.iteration)
            log.info("%s", log_lines.writing_model(path))
            write_model(path, net, trimmed_weights(net, solver.weights(), rng=np.random.default_rng(0)))


def _result(solver: Solver, finished: bool, saved: int | None) -> TrainingResult:
    snapshots = solver.settings.snapshots
    return TrainingResult(
        iteration=solver.iteration,
        finished=finished,
        loss=solver.loss,
        tests=tuple(
            {output.blob: output.means.tolist() for output in scores.outputs}
            for _, scores in sorted(solver.tested.items())
        ),
        model=None if saved is None else model_file(snapshots, saved),
        state=None if saved is None else state_file(snapshots, saved),
        net=solver.net.net,
    )


def _requested(config: TrainConfig, settings: SolverSettings) -> GpuRequest:
    """The GPU requested by the command line, or else by the solver file."""
    if config.gpu.number is not None or settings.gpu is None:
        return config.gpu
    return replace(config.gpu, number=settings.gpu, source=f"solver_mode: GPU in {config.solver}")


def _gpu_for_tests(gpu: int | None) -> int | None:
    """The GPU for test nets, which run on onnxruntime; None for the CPU, if onnxruntime cannot use that GPU."""
    if gpu is None:
        return None
    try:
        onnx_session.probe(gpu)
    except GpuUnusable as fault:
        log.warning("Test nets are scored on the CPU, which gives the same results: %s", fault)
        return None
    return gpu
