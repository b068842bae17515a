"""Setup of a training from its solver file: nets, initial weights, data and solver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from ristretto_cli.caffe_io.net_file import NetFile, SolverFile
from ristretto_cli.caffe_io.weights import WeightsFile, merged_weights, read_weights
from ristretto_cli.errors import RistrettoError, RistrettoErrors, raise_all
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.net.build import build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import fill_weights, load_weights
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.metrics import check_metric_options
from ristretto_cli.sources.open import DataLayers
from ristretto_cli.train import log_lines
from ristretto_cli.train.signals import Request
from ristretto_cli.train.snapshot import check_complete, read_state, write_snapshot
from ristretto_cli.train.solver import Solver
from ristretto_cli.train.solver_settings import NetSource, SolverSettings
from ristretto_cli.train.test_nets import Tester
from ristretto_cli.train.trained_net import TrainNet

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class TrainingSetup:
    """The inputs and options of a training.

    device: torch's name of the device to train on. gpu: the device of test nets, which run on onnxruntime; None for the
    CPU. threads: for test nets on the CPU, 0 for the default. trim_activations, round_to_nearest, update_quantized: see
    TrainNet.
    metric_options: for test nets with metrics. write: saves a snapshot, `save` by default. request, on_iteration,
    clock: see Solver.
    """

    solver: SolverFile
    settings: SolverSettings
    device: str = "cpu"
    gpu: int | None = None
    threads: int = 0
    trim_activations: bool = False
    round_to_nearest: bool = False
    update_quantized: bool = False
    metric_options: MetricOptions = field(default_factory=MetricOptions)
    write: Callable[[Solver], object] | None = None
    request: Callable[[], Request] = lambda: Request.NONE
    on_iteration: Callable[[int, int], None] = lambda done, total: None
    clock: Callable[[], float] = time.monotonic


@contextmanager
def open_solver(setup: TrainingSetup) -> Iterator[Solver]:
    """The solver, ready to run; the context closes its data. RistrettoError(s) for all errors in its files.

    Weights come from the settings' files, of which later ones override earlier ones; missing ones from fillers.
    """
    settings = setup.settings
    seeds = np.random.SeedSequence(settings.seed)
    for_weights, for_passes, for_tests = (np.random.default_rng(seed) for seed in seeds.spawn(3))
    for_data = int(seeds.generate_state(1)[0])
    read = [_read(file) for file in settings.weights]
    weights = merged_weights(read) if read else None
    with ExitStack() as files:
        log.info("Creating training net from %s", settings.train.description)
        train_file, net = _built(setup, settings.train)
        net = _with_weights(net, weights, for_weights)
        train_net = TrainNet(
            net,
            rng=for_passes,
            device=setup.device,
            force_backward=train_file.message.force_backward,
            trim_activations=setup.trim_activations,
            round_to_nearest=setup.round_to_nearest,
            update_quantized=setup.update_quantized,
        )
        testers = []
        for i, (source, iterations) in enumerate(zip(settings.tests.nets, settings.tests.iterations, strict=True)):
            log.info("Creating test net (#%d) specified by %s", i, source.description)
            with _naming_test_net(i, source, settings.train):
                _, test_net = _built(setup, source)
            known = {layer.name for layer in net.layers}
            if any(layer.params and layer.name not in known for layer in test_net.layers):
                test_net = _with_weights(test_net, weights, for_tests)
            seed = for_data + 1000 * (i + 1)
            tester = Tester(
                test_net,
                net,
                iterations,
                rng=for_tests,
                execution=Execution(setup.gpu, setup.threads),
                seed=seed,
                metric_options=setup.metric_options,
            )
            testers.append(files.enter_context(tester))
        check_metric_options([tester.net for tester in testers], setup.metric_options, setup.solver.file)
        batches = files.enter_context(DataLoader(net, seed=for_data))
        yield Solver(
            settings,
            train_net,
            batches,
            testers,
            snapshot=setup.write or save,
            request=setup.request,
            on_iteration=setup.on_iteration,
            clock=setup.clock,
        )


def resume(solver: Solver, path: str) -> None:
    """Resume from a solverstate file and the weights that it names. RistrettoError if they do not fit the net."""
    state = read_state(path, solver.history_layout)
    weights = read_weights(state.learned_net)
    check_complete(path, solver.net.net, weights)
    net = load_weights(solver.net.net, weights, rng=np.random.default_rng(), allow_missing=True)
    solver.restore(state, net.weights)


def save(solver: Solver) -> str:
    """Write a snapshot of a solver, by its settings; returns the name of the weights' file."""
    snapshots = solver.settings.snapshots
    diffs = solver.differences() if snapshots.diff else None
    return write_snapshot(snapshots, solver.net.net, solver.state(), solver.weights(), diffs)


def _built(setup: TrainingSetup, source: NetSource) -> tuple[NetFile, Net]:
    """A net of the solver without weights, and its file."""
    file = source.read(setup.solver)
    return file, build(file, source.state_of(file), DataLayers())


@contextmanager
def _naming_test_net(number: int, source: NetSource, train: NetSource) -> Iterator[None]:
    """Add to errors that they are a test net's, whose stages and level are not those of the training net."""
    try:
        yield
    except RistrettoError as error:
        stages, level = (train.state.stage, train.state.level) if train.state is not None else ((), 0)
        missing = [stage for stage in stages if source.state is None or stage not in source.state.stage]
        given = [f'stage "{stage}"' for stage in missing] + ([f"level {level}"] if level else [])
        only = f" {' and '.join(given)} of the training net {'is' if len(given) == 1 else 'are'} not set for it:"
        hint = f"{only} set test_state {{ }} in the solver" if given else ""
        lines = error.errors if isinstance(error, RistrettoErrors) else [error]
        raise_all(RistrettoError(str(line), hint=f"This is test net #{number}.{hint}") for line in lines)


def _with_weights(net: Net, weights: WeightsFile | None, rng: np.random.Generator) -> Net:
    """The net with weights from a file; missing ones from its fillers."""
    if weights is None:
        return fill_weights(net, rng=rng)
    return load_weights(net, weights, rng=rng, allow_missing=True)


def _read(file: str) -> WeightsFile:
    log.info("%s", log_lines.finetuning(file))
    return read_weights(file)
