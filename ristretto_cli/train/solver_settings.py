"""A solver's settings: a SolverParameter, checked and frozen. What Caffe refuses is refused, with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message, enum_name
from ristretto_cli.caffe_io.net_file import NetFile, SolverFile, read_net
from ristretto_cli.errors import raise_all
from ristretto_cli.net.build import State
from ristretto_cli.train.solver_checks import TRAIN_NETS, faults


@dataclass(frozen=True)
class Policy:
    """How the learning rate goes; see rates.py. name is one of settings_faults.POLICIES."""

    name: str
    base_lr: float
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalues: tuple[int, ...] = ()
    max_iter: int = 0


@dataclass(frozen=True)
class Rule:
    """How gradients become updates; see updates.py. type is one of settings_faults.TYPES.

    clip_gradients: what the L2 norm of all gradients together is at most; None: anything. regularization: L1 or L2.
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
    """Where a net of the solver is. field and index: where in the SolverParameter. told: what Caffe calls it.

    phase and state: of what it is built for, before its own `state` and then these are merged in.
    """

    field: str
    index: int
    told: str
    phase: int
    state: Message | None = None

    def read(self, solver: SolverFile) -> NetFile:
        """The net: the solver's own, or that of the file which it names. RistrettoError(s) with the net's faults."""
        held = getattr(solver.message, self.field)
        if self.field.endswith("_param"):
            return solver.net(self.field, self.index)
        return read_net(held[self.index] if self.field == "test_net" else held)

    def state_of(self, net: NetFile) -> State:
        """What the net is built for; the net's own stages are in the net."""
        phase, level, stages = self.phase, 0, []
        for state in (net.message.state, self.state):
            if state is not None:
                phase = state.phase if state.HasField("phase") else phase
                level = state.level if state.HasField("level") else level
        if self.state is not None:
            stages += self.state.stage
        return State(phase, level, tuple(stages))


@dataclass(frozen=True)
class Tests:
    """How the net is tested: before each iteration that `interval` divides (0: never), over iterations[i] batches
    of net i. at_start: before the first one, too. loss: tell the loss of the whole net."""

    __test__ = False  # it is none of pytest's

    interval: int = 0
    iterations: tuple[int, ...] = ()
    nets: tuple[NetSource, ...] = ()
    at_start: bool = True
    loss: bool = False


@dataclass(frozen=True)
class Snapshots:
    """When and how the training is saved: behind each `interval`-th update (0: none), and at the end.

    diff: with the gradients. hdf5: as HDF5, else as binary protobuf.
    """

    prefix: str
    interval: int = 0
    hdf5: bool = False
    diff: bool = False
    after_train: bool = True


@dataclass(frozen=True)
class Settings:
    """All that a solver file says.

    display: tell the loss each so many iterations (0: never), a mean over the last average_loss of them.
    weights: files of weights to begin with. seed: of all that is random; None: another one each time.
    gpu: the device that the file asks for; None where it does not.
    """

    train: NetSource
    policy: Policy
    rule: Rule
    max_iter: int
    snapshots: Snapshots
    tests: Tests = field(default_factory=Tests)
    display: int = 0
    average_loss: int = 1
    weights: tuple[str, ...] = ()
    seed: int | None = None
    gpu: int | None = None
    debug_info: bool = False


def settings_of(solver: SolverFile, *, level: int | None = None, stages: Sequence[str] = ()) -> Settings:
    """A solver's settings; level and stages are added to those of its train_state, as by Caffe's flags.

    Raises RistrettoError(s) with all that is wrong, each with its line.
    """
    raise_all(faults(solver))
    param = solver.message
    state = type(param.train_state)()
    state.CopyFrom(param.train_state)
    if level is not None:
        state.level = level
    state.stage.extend(stages)
    return Settings(
        train=_train_source(param, state),
        policy=Policy(
            param.lr_policy,
            param.base_lr,
            param.gamma,
            param.power,
            param.stepsize,
            tuple(param.stepvalue),
            param.max_iter,
        ),
        rule=Rule(
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


def split_files(lists: Sequence[str]) -> Iterator[str]:
    """The names in comma-separated lists of files.

    >>> list(split_files(["a.caffemodel, b.caffemodel", "c.h5"]))
    ['a.caffemodel', 'b.caffemodel', 'c.h5']
    """
    for names in lists:
        yield from (name.strip() for name in names.split(",") if name.strip())


def _gpu(param: Message) -> int | None:
    # The mode counts only where it is written: its default, GPU, does not.
    if param.HasField("solver_mode") and enum_name(param, "solver_mode") == "GPU":
        return int(param.device_id)
    return None


def _train_source(param: Message, state: Message) -> NetSource:
    name = next(name for name in TRAIN_NETS if param.HasField(name))
    told = name if name.endswith("_param") else f"{name} file: {getattr(param, name)}"
    return NetSource(name, 0, told, TRAIN, state)


def _test_sources(param: Message) -> Iterator[NetSource]:
    """A net for each test_iter: those that are for testing alone, then the training's own file."""
    found = [("test_net_param", i, "test_net_param") for i in range(len(param.test_net_param))]
    found += [("test_net", i, f"test_net file: {file}") for i, file in enumerate(param.test_net)]
    for _ in range(len(param.test_iter) - len(found)):
        if param.HasField("net_param"):
            found.append(("net_param", 0, "net_param"))
        else:
            found.append(("net", 0, f"net file: {param.net}"))
    states = list(param.test_state) or [None] * len(found)
    for (name, index, told), state in zip(found, states, strict=True):
        yield NetSource(name, index, told, TEST, state)
