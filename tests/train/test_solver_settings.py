"""Solver files as settings, and their errors with lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.caffe_io.net_file import SolverFile, read_solver
from ristretto_cli.errors import RistrettoError
from ristretto_cli.train.solver_checks import TYPES
from ristretto_cli.train.solver_settings import settings_of

REST = 'base_lr: 0.1\nlr_policy: "fixed"\nmax_iter: 10\n'
WHOLE = f'net: "net.prototxt"\n{REST}'
NET = 'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 } } }\n'


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SolverFile]:
    monkeypatch.chdir(tmp_path)

    def write_and_read(text: str) -> SolverFile:
        Path("solver.prototxt").write_text(text)
        return read_solver("solver.prototxt")

    return write_and_read


def test_what_a_solver_does_not_say_is_as_in_caffe(read: Callable[[str], SolverFile]) -> None:
    settings = settings_of(read(WHOLE))
    assert settings.rule.type == "SGD"
    assert (settings.rule.momentum, settings.rule.weight_decay, settings.rule.iter_size) == (0, 0, 1)
    assert settings.rule.clip_gradients is None
    assert settings.rule.delta == pytest.approx(1e-8)
    assert settings.display == 0
    assert settings.seed is None
    assert settings.gpu is None
    assert settings.snapshots.prefix == "solver"
    assert settings.snapshots.after_train
    assert not settings.snapshots.hdf5
    assert settings.tests.nets == ()
    assert settings.train.description == "net file: net.prototxt"


def test_the_old_solver_type_is_its_type(read: Callable[[str], SolverFile]) -> None:
    assert settings_of(read(f"{WHOLE}solver_type: ADADELTA")).rule.type == "AdaDelta"


@pytest.mark.parametrize(
    ("text", "gpu"),
    [("solver_mode: GPU", 0), ("solver_mode: GPU device_id: 2", 2), ("solver_mode: CPU", None), ("device_id: 2", None)],
)
def test_a_gpu_is_requested_by_an_explicit_mode(read: Callable[[str], SolverFile], text: str, gpu: int | None) -> None:
    assert settings_of(read(WHOLE + text)).gpu == gpu


def test_weights_are_lists_of_files(read: Callable[[str], SolverFile]) -> None:
    settings = settings_of(read(f'{WHOLE}weights: "a.caffemodel, b.h5"\nweights: "c.caffemodel"'))
    assert settings.weights == ("a.caffemodel", "b.h5", "c.caffemodel")


def test_test_nets_come_in_caffes_order(read: Callable[[str], SolverFile]) -> None:
    nets = f'net: "n.prototxt" test_iter: [1, 2, 3] test_net: "t.prototxt" test_net_param {{ {NET} }}'
    settings = settings_of(read(f"test_interval: 5\n{REST}{nets}"))
    assert [net.description for net in settings.tests.nets] == [
        "test_net_param",
        "test_net file: t.prototxt",
        "net file: n.prototxt",
    ]
    assert settings.tests.iterations == (1, 2, 3)


def test_a_state_of_the_solver_goes_over_the_nets_own(read: Callable[[str], SolverFile]) -> None:
    solver = read(
        f'net_param {{ state {{ level: 3 stage: "a" }} {NET} }} train_state {{ stage: "b" }}\n'
        f"test_interval: 1 test_iter: 1 test_state {{ level: 5 }}\n{REST}"
    )
    settings = settings_of(solver)
    net = settings.train.read(solver)
    state = settings.train.state_of(net)
    assert (state.phase, state.level, state.stages) == (TRAIN, 3, ("b",))  # "a" is in the net
    test = settings.tests.nets[0].state_of(net)
    assert (test.phase, test.level, test.stages) == (TEST, 5, ())


def test_a_level_and_stages_of_the_command_are_the_train_states(read: Callable[[str], SolverFile]) -> None:
    solver = read(f'net_param {{ state {{ level: 3 }} {NET} }} train_state {{ stage: "b" }}\n{REST}')
    settings = settings_of(solver, level=0, stages=["c"])
    state = settings.train.state_of(settings.train.read(solver))
    assert (state.level, state.stages) == (0, ("b", "c"))


REFUSED = [
    (REST, 'solver.prototxt: no net to train is given. Add net: "train_val.prototxt".'),
    (
        f'{WHOLE}train_net: "t"',
        "solver.prototxt:5: the solver has several nets to train: net, train_net. Use only one of them.",
    ),
    (f'{WHOLE}type: "Adamm"', 'solver.prototxt:5: unknown solver type "Adamm". Did you mean Adam?'),
    (
        f'{WHOLE}type: "AdaGrad" momentum: 0.9',
        "solver.prototxt:5: momentum cannot be used with solver type AdaGrad. Remove it.",
    ),
    (
        f'{WHOLE}type: "RMSProp"\nmomentum: 0.9',
        "solver.prototxt:6: momentum cannot be used with solver type RMSProp. Remove it.",
    ),
    (
        f'{WHOLE}type: "RMSProp"\nrms_decay: 1',
        "solver.prototxt:6: rms_decay is 1. It must be in [0, 1).",
    ),
    (
        f'{WHOLE}type: "Adam"\nmomentum: 1',
        "solver.prototxt:6: momentum is 1. It must be in [0, 1) for Adam.",
    ),
    (
        f'{WHOLE}regularization_type: "L3"',
        'solver.prototxt:5: unknown regularization type "L3". Known: L1, L2.',
    ),
    (
        'net: "n"\nbase_lr: 1\nmax_iter: 1\nlr_policy: "multi_step"',
        'solver.prototxt:4: unknown learning rate policy "multi_step". Did you mean multistep?',
    ),
    (
        'net: "n"\nbase_lr: 1\nmax_iter: 1',
        "solver.prototxt: lr_policy is missing. Known: fixed, step, exp, inv, multistep, poly, sigmoid.",
    ),
    (
        'net: "n"\nbase_lr: 1\nmax_iter: 1\nlr_policy: "step"',
        "solver.prototxt: stepsize is 0. It must be 1 or more for policy step.",
    ),
    (
        'net: "n"\nbase_lr: 1\nmax_iter: 1\nlr_policy: "exp"\ngamma: -1',
        "solver.prototxt:5: gamma is -1. It must be 0 or more for policy exp.",
    ),
    ('net: "n"\nlr_policy: "fixed"\nmax_iter: 1', "solver.prototxt: base_lr is missing. Add base_lr to the solver."),
    ('net: "n"\nlr_policy: "fixed"\nbase_lr: 1', "solver.prototxt: max_iter is missing. Add max_iter to the solver."),
    (f"{WHOLE}average_loss: 0", "solver.prototxt:5: average_loss is 0. It must be 1 or more."),
    (f"{WHOLE}iter_size: 0", "solver.prototxt:5: iter_size is 0. It must be 1 or more."),
    (f"{WHOLE}momentum: nan", "solver.prototxt:5: momentum is nan. It must be a number."),
    (
        f"{WHOLE}test_iter: 3",
        "solver.prototxt:5: the solver has a test net but no test_interval. "
        "Set the number of iterations between tests: test_interval: 500.",
    ),
    (
        f'{WHOLE}test_interval: 1\ntest_net: "t"',
        "solver.prototxt:6: the solver has 0 test_iter for 1 test nets. Set one for each test net.",
    ),
    (
        f'train_net: "n"\n{REST}test_interval: 1\ntest_iter: 2',
        "solver.prototxt:6: the solver has 1 test_iter for 0 test nets. Set one for each test net.",
    ),
    (
        f"{WHOLE}test_interval: 1\ntest_iter: 2\ntest_state {{ }}\ntest_state {{ }}",
        "solver.prototxt:7: the solver has 2 test_state for 1 test nets. Set one for each test net, or none.",
    ),
    (
        f"{WHOLE}test_interval: 1\ntest_iter: 2\ntest_iter: -1",
        "solver.prototxt:7: test_iter is -1. It must be 0 or more.",
    ),
    (f"{WHOLE}snapshot: -1", "solver.prototxt:5: snapshot is -1. It must be 0 or more."),
]


@pytest.mark.parametrize(("text", "reported"), REFUSED)
def test_what_cannot_be_trained_is_reported_with_its_line(
    read: Callable[[str], SolverFile], text: str, reported: str
) -> None:
    with pytest.raises(RistrettoError) as refused:
        settings_of(read(text))
    assert str(refused.value) == reported


def test_all_faults_are_reported_at_once(read: Callable[[str], SolverFile]) -> None:
    with pytest.raises(RistrettoError) as refused:
        settings_of(read(f'{WHOLE}type: "no"\niter_size: -1\nsnapshot: -5'))
    assert [line.split(":")[1] for line in str(refused.value).splitlines()] == ["7", "6", "5"]


def test_the_types_of_the_settings_are_those_that_there_are() -> None:
    pytest.importorskip("torch", reason="training needs torch")
    from ristretto_cli.train.optimizers import OPTIMIZERS

    assert tuple(OPTIMIZERS) == TYPES
