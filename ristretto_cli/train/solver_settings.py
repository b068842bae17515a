"""A solver's settings: a SolverParameter, checked and frozen. All errors are reported with their lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message, enum_name
from ristretto_cli.caffe_io.net_file import NetFile, SolverFile, read_net
from ristretto_cli.caffe_io.weights import split_files
from ristretto_cli.errors import raise_all
from ristretto_cli.net.build import NetState
from ristretto_cli.train.solver_checks import TRAIN_NETS, faults


@dataclass(frozen=True)
class LrPolicy:
    """A learning rate policy; see lr_policies.py. name: one of solver_checks.POLICIES."""

    name: str
    base_lr: float
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalues: tuple[int, ...] = ()
    max_iter: int = 0


@dataclass(frozen=True)
class UpdateRule:
    """The settings of an optimizer; see optimizers.py. type: one of solver_checks.TYPES.

    clip_gradients: the maximum of the L2 norm of all gradients together; None: no limit. regularization: L1 or L2.
    """

    type: str = "SGD"
    momentum: float = 0.0
    momentum2: float = 0.999
    delta: float = 1e-8
    rms_decay: float = 0.99
    weight_decay: float = 0.0
    regularization: str = "L2"
    clip_gradients: float | None = None
    iter_size: int = 1


@dataclass(frozen=True)
class NetSource:
    """A net of the solver. field, index: its place in the SolverParameter. description: for the log, as by Caffe.

    phase: the default phase; the net's own `state`, and then `state`, are merged into it.
    """

    field: str
    index: int
    description: str
    phase: int
    state: Message | None = None

    def read(self, solver: SolverFile) -> NetFile:
        """The net in the solver itself, or in the file that it names. RistrettoError(s) for its errors."""
        held = getattr(solver.message, self.field)
        if self.field.endswith("_param"):
            return solver.net(self.field, self.index)
        return read_net(held[self.index] if self.field == "test_net" else held)

    def state_of(self, net: NetFile) -> NetState:
        """The state that the net is built for, without the stages in the net itself."""
        phase, level, stages = self.phase, 0, []
        for state in (net.message.state, self.state):
            if state is not None:
                phase = state.phase if state.HasField("phase") else phase
                level = state.level if state.HasField("level") else level
        if self.state is not None:
            stages += self.state.stage
        return NetState(phase, level, tuple(stages))


@dataclass(frozen=True)
class Tests:
    """The tests of a training: every `interval` iterations (0: never), on iterations[i] batches of net i. at_start:
    before the first iteration too. loss: log the loss of the whole net."""

    __test__ = False  # not a pytest class

    interval: int = 0
    iterations: tuple[int, ...] = ()
    nets: tuple[NetSource, ...] = ()
    at_start: bool = True
    loss: bool = False


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of a training: after every `interval` updates (0: none), and at the end.

    diff: with gradients. hdf5: as HDF5 instead of binary protobuf.
    """

    prefix: str
    interval: int = 0
    hdf5: bool = False
    diff: bool = False
    after_train: bool = True


@dataclass(frozen=True)
class SolverSettings:
    """The settings in a solver file.

    display: the interval, in iterations, of logging the loss (0: never), a mean over the last average_loss iterations.
    weights: files of initial weights. seed: for all random numbers; None: a different one each time. gpu: the device
    requested by the file, if any.
    """

    train: NetSource
    policy: LrPolicy
    rule: UpdateRule
    max_iter: int
    snapshots: Snapshots
    tests: Tests = field(default_factory=Tests)
    display: int = 0
    average_loss: int = 1
    weights: tuple[str, ...] = ()
    seed: int | None = None
    gpu: int | None = None
    debug_info: bool = False


def settings_of(solver: SolverFile, *, level: int | None = None, stages: Sequence[str] = ()) -> SolverSettings:
    """A solver's settings; level and stages are added to those of its train_state, as by Caffe's flags.

    Raises RistrettoError(s) for all errors, each with its line.
    """
    raise_all(faults(solver))
    param = solver.message
    state = type(param.train_state)()
    state.CopyFrom(param.train_state)
    if level is not None:
        state.level = level
    state.stage.extend(stages)
    return SolverSettings(
        train=_train_source(param, state),
        policy=LrPolicy(
            param.lr_policy,
            param.base_lr,
            param.gamma,
            param.power,
            param.stepsize,
            tuple(param.stepvalue),
            param.max_iter,
        ),
        rule=UpdateRule(
            type=param.type,
            momentum=param.momentum,
            momentum2=param.momentum2,
            delta=param.delta,
            rms_decay=param.rms_decay,
            weight_decay=param.weight_decay,
            regularization=param.regularization_type,
            clip_gradients=param.clip_gradients if param.clip_gradients >= 0 else None,
            iter_size=param.iter_size,
        ),
        max_iter=param.max_iter,
        snapshots=Snapshots(
            prefix=param.snapshot_prefix,
            interval=param.snapshot,
            hdf5=enum_name(param, "snapshot_format") == "HDF5",
            diff=param.snapshot_diff,
            after_train=param.snapshot_after_train,
        ),
        tests=Tests(
            param.test_interval,
            tuple(param.test_iter),
            tuple(_test_sources(param)),
            param.test_initialization,
            param.test_compute_loss,
        ),
        display=param.display,
        average_loss=param.average_loss,
        weights=tuple(split_files(param.weights)),
        seed=param.random_seed if param.random_seed >= 0 else None,
        gpu=_gpu(param),
        debug_info=param.debug_info,
    )


def _gpu(param: Message) -> int | None:
    # Only if it is set: the default, GPU, has no effect.
    if param.HasField("solver_mode") and enum_name(param, "solver_mode") == "GPU":
        return int(param.device_id)
    return None


def _train_source(param: Message, state: Message) -> NetSource:
    name = next(name for name in TRAIN_NETS if param.HasField(name))
    description = name if name.endswith("_param") else f"{name} file: {getattr(param, name)}"
    return NetSource(name, 0, description, TRAIN, state)


def _test_sources(param: Message) -> Iterator[NetSource]:
    """A net for each test_iter: first the nets that are only for testing, then the training net's own file."""
    found = [("test_net_param", i, "test_net_param") for i in range(len(param.test_net_param))]
    found += [("test_net", i, f"test_net file: {file}") for i, file in enumerate(param.test_net)]
    for _ in range(len(param.test_iter) - len(found)):
        if param.HasField("net_param"):
            found.append(("net_param", 0, "net_param"))
        else:
            found.append(("net", 0, f"net file: {param.net}"))
    states = list(param.test_state) or [None] * len(found)
    for (name, index, description), state in zip(found, states, strict=True):
        yield NetSource(name, index, description, TEST, state)
