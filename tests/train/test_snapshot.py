"""Snapshots: the files that are written, interrupted writes, and errors for files that do not fit."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN, message_class, new
from ristretto_cli.caffe_io.solverstate import read_solver_state, write_solver_state
from ristretto_cli.caffe_io.weights import read_net_binary, read_weights, write_weights
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Net
from ristretto_cli.train.snapshot import prepare_snapshots, read_state, write_snapshot
from ristretto_cli.train.solver_settings import Snapshots
from ristretto_cli.train.solver_state import SolverState

from ..conftest import Workshop

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
TRAINING = SHARED / "golden" / "training"

NET = """
    name: "small"
    layer { name: "data" type: "DummyData" top: "data" top: "label"
            dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 2 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
WEIGHTS = {"fc/0": np.arange(6, dtype=np.float32).reshape(2, 3), "fc/1": np.array([0.5, -0.5], np.float32)}
DIFFS = {key: -array for key, array in WEIGHTS.items()}
REMEDY = "Raise the limit on the size of files (ulimit -f)."
STATE = SolverState(7, 2, (np.full((2, 3), 0.25, np.float32), np.array([1, 2], np.float32)))
LAYOUT = [("fc/0", (2, 3)), ("fc/1", (2,))]


@pytest.fixture
def net(workshop: Workshop) -> Net:
    return workshop.load(NET, phase=TRAIN)


def fault(path: str, layout: Any = LAYOUT) -> str:
    with pytest.raises(RistrettoError) as caught:
        read_state(path, layout)
    text = str(caught.value)
    assert text.startswith(path)
    assert "\n" not in text
    return text[len(path) :]


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir()}


# --- what is written


@pytest.mark.parametrize(("hdf5", "ending"), [(False, ""), (True, ".h5")])
def test_a_snapshot_is_two_files_that_give_back_what_was_saved(net: Net, hdf5: bool, ending: str) -> None:
    model = write_snapshot(Snapshots("P", hdf5=hdf5), net, STATE, WEIGHTS)
    assert model == f"P_iter_7.caffemodel{ending}"
    assert sorted(files()) == [f"P_iter_7.caffemodel{ending}", f"P_iter_7.solverstate{ending}", "net.prototxt"]
    state = read_state(f"P_iter_7.solverstate{ending}", LAYOUT)
    assert (state.iteration, state.current_step, state.learned_net) == (7, 2, model)
    assert [array.tolist() for array in state.history] == [[[0.25] * 3] * 2, [1, 2]]
    assert [blob.array.tolist() for blob in read_weights(model).layers["fc"]] == [[[0, 1, 2], [3, 4, 5]], [0.5, -0.5]]


def test_the_model_has_the_layers_as_caffe_writes_them(net: Net) -> None:
    message = read_net_binary(write_snapshot(Snapshots("P"), net, STATE, WEIGHTS))
    assert message.name == "small"
    assert [layer.name for layer in message.layer] == ["data", "fc", "loss"]
    assert all(layer.HasField("phase") and layer.phase == TRAIN for layer in message.layer)
    assert list(message.layer[2].loss_weight) == [1]


def test_gradients_are_written_along_if_wanted(net: Net) -> None:
    message = read_net_binary(write_snapshot(Snapshots("P", diff=True), net, STATE, WEIGHTS, DIFFS))
    weights, bias = message.layer[1].blobs
    assert list(weights.data) == [0, 1, 2, 3, 4, 5]
    assert list(weights.diff) == [0, -1, -2, -3, -4, -5]
    assert list(bias.diff) == [-0.5, 0.5]
    with h5py.File(write_snapshot(Snapshots("P", hdf5=True, diff=True), net, STATE, WEIGHTS, DIFFS)) as file:
        assert file["data/fc/1"][()].tolist() == [0.5, -0.5]
        assert file["diff/fc/1"][()].tolist() == [-0.5, 0.5]


def test_hdf5_has_a_shared_parameter_once_and_its_gradient_with_each_layer(workshop: Workshop) -> None:
    shared = 'inner_product_param { num_output: 3 bias_term: false } param { name: "w" } }'
    net = workshop.load(
        'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 3 } } }'
        f'layer {{ name: "a" type: "InnerProduct" bottom: "d" top: "a" {shared}'
        f'layer {{ name: "b" type: "InnerProduct" bottom: "a" top: "b" {shared}',
        phase=TRAIN,
    )
    eye = np.eye(3, dtype=np.float32)
    for hdf5 in (False, True):
        model = write_snapshot(Snapshots("P", hdf5=hdf5, diff=True), net, STATE, {"a/0": eye}, {"a/0": -eye})
        assert ("b" in read_weights(model).layers) is not hdf5
    with h5py.File("P_iter_7.caffemodel.h5") as file:
        assert list(file["data/b"]) == []
        assert list(file["diff/b"]) == ["0"]


@pytest.mark.parametrize("ending", ["", ".h5"])
def test_names_of_weights_may_be_any_bytes(net: Net, ending: str) -> None:
    name = os.fsdecode(b"m\xff.caffemodel")
    Path(name).touch()
    write_solver_state(f"s{ending}", 7, 0, name, STATE.history)
    assert read_state(f"s{ending}", LAYOUT).learned_net == name


@pytest.mark.usefixtures("workshop")
def test_the_name_in_an_hdf5_state_ends_with_a_zero_byte_as_caffe_needs_it() -> None:
    """It reads as many bytes as are stored, and takes them for a C string."""
    write_solver_state("s.h5", 1, 0, "m.h5", [])
    with h5py.File("s.h5") as file:
        kind = file["learned_net"].id.get_type()
        assert (kind.get_size(), kind.get_strpad()) == (5, h5py.h5t.STR_NULLTERM)
        assert file["iter"].shape == (1,)
        assert file["iter"].dtype == np.int32
    assert read_solver_state("s.h5").learned_net == "m.h5"


def recorded(*patterns: str) -> list[Path]:
    found = sorted(path for pattern in patterns for path in TRAINING.glob(pattern))
    if not found:
        pytest.skip(f"no recorded cases in {TRAINING}")
    return found


def test_recorded_states_are_read_and_written_again_byte_for_byte(tmp_path: Path) -> None:
    for path in recorded("solver_*/*.solverstate", "solver_*/expected/*.solverstate"):
        stored = read_solver_state(path)
        history = [blob.array for blob in stored.history]
        write_solver_state(tmp_path / "s", stored.iteration, stored.current_step, stored.learned_net, history)
        assert (tmp_path / "s").read_bytes() == path.read_bytes(), path


def test_recorded_models_are_read_and_written_again_byte_for_byte(tmp_path: Path) -> None:
    with_diffs = 0
    for path in recorded("solver_*/*.caffemodel", "solver_*/expected/*.caffemodel"):
        net = read_net_binary(path)
        diffs = {
            layer.name: [np.array(blob.diff, np.float32).reshape(blob.shape.dim) for blob in layer.blobs]
            for layer in net.layer
            if any(blob.diff for blob in layer.blobs)
        }
        with_diffs += bool(diffs)
        layers = {name: [blob.array for blob in blobs] for name, blobs in read_weights(path).layers.items()}
        write_weights(tmp_path / "m", layers, net=net, diffs=diffs or None)
        assert (tmp_path / "m").read_bytes() == path.read_bytes(), path
    assert with_diffs == 1


def test_recorded_hdf5_files_are_written_again_with_the_same_datasets(tmp_path: Path) -> None:
    """Not byte for byte: another version of HDF5 lays them out in another way."""
    copy = tmp_path / "copy.h5"
    for path in recorded("solver_*/expected/*.h5"):
        if ".solverstate" in path.name:
            stored = read_solver_state(path)
            history = [blob.array for blob in stored.history]
            write_solver_state(copy, stored.iteration, stored.current_step, stored.learned_net, history)
        else:
            layers = {name: [blob.array for blob in blobs] for name, blobs in read_weights(path).layers.items()}
            with h5py.File(path) as file:
                net = new("NetParameter", layer=[new("LayerParameter", name=name) for name in file["data"]])
            write_weights(copy, layers, net=net)
        assert datasets(copy) == datasets(path), path


def datasets(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        is_data = isinstance(item, h5py.Dataset)
        found[name] = (item.shape, item.id.get_type(), item[()].tolist()) if is_data else None

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


# --- what cannot be written, or is interrupted


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Files that grow beyond a size fail, as on a full disk; also those of pytest, so nothing is reported meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(("hdf5", "ending"), [(False, ""), (True, ".h5")])
def test_a_full_disk_leaves_the_older_snapshot_and_nothing_half(net: Net, hdf5: bool, ending: str) -> None:
    snapshots = Snapshots("P", hdf5=hdf5)
    write_snapshot(snapshots, net, STATE, WEIGHTS)
    before = files()
    for iteration in (7, 8):
        with pytest.raises(RistrettoError) as caught, small_files(100):
            write_snapshot(snapshots, net, SolverState(iteration, 2, STATE.history), WEIGHTS)
        assert (
            str(caught.value) == f"P_iter_{iteration}.caffemodel{ending}: cannot be written: file too large. {REMEDY}"
        )
    assert files() == before


def test_where_the_disk_is_full_after_the_weights_the_older_state_is_still_there(
    net: Net,
) -> None:
    write_snapshot(Snapshots("P"), net, STATE, WEIGHTS)
    large = SolverState(8, 2, (np.zeros(10_000, np.float32),))
    reported = r"^P_iter_8.solverstate: cannot be written: file too large\."
    with pytest.raises(RistrettoError, match=reported), small_files(20_000):
        write_snapshot(Snapshots("P"), net, large, WEIGHTS)
    assert read_state("P_iter_7.solverstate", LAYOUT).learned_net == "P_iter_7.caffemodel"
    assert not Path("P_iter_8.solverstate").exists()


def test_a_folder_that_is_missing_or_read_only_is_reported_before_training(net: Net) -> None:
    with pytest.raises(RistrettoError, match=r"^no/P_iter_0.caffemodel: the folder .*/no does not exist"):
        prepare_snapshots(Snapshots("no/P"))


KILLED = """
    import os, sys
    import numpy as np
    from ristretto_cli.train.solver_settings import Snapshots
    from ristretto_cli.train.snapshot import write_snapshot
    from ristretto_cli.train.solver_state import SolverState
    from ristretto_cli.scoring.net_files import load_net
    from ristretto_cli.net.build import NetState

    net = load_net("net.prototxt", None, NetState(0), rng=np.random.default_rng(0))
    arrays = {"fc/0": np.ones((2, 3), np.float32), "fc/1": np.ones(2, np.float32)}
    calls = 0

    def count(event, args):  # dies in front of the WHEN-th event that changes the folder
        global calls
        if event in ("open", "os.rename", "os.chmod") and isinstance(args[0], (str, bytes, os.PathLike)):
            if "_iter_" in str(args[0]):
                calls += 1
                if calls == int(sys.argv[1]):
                    os.kill(os.getpid(), 9)

    sys.addaudithook(count)
    write_snapshot(Snapshots("P"), net, SolverState(8, 2, tuple(arrays.values())), arrays)
    print(calls)
"""


def test_kill_9_at_any_time_leaves_no_half_file_under_a_final_name(net: Net) -> None:
    write_snapshot(Snapshots("P"), net, STATE, WEIGHTS)
    script = textwrap.dedent(KILLED)
    whole = subprocess.run([sys.executable, "-c", script, "0"], capture_output=True, text=True, check=True)
    steps = int(whole.stdout)
    assert steps >= 6  # for each of two files: made, open_solver, renamed
    written = {path.name: path.read_bytes() for path in Path().glob("P_iter_8.*")}
    left = 0
    for step in range(1, steps + 1):
        for path in Path().glob("P_iter_8.*"):
            path.unlink()
        killed = subprocess.run([sys.executable, "-c", script, str(step)], capture_output=True)
        assert killed.returncode == -signal.SIGKILL
        there = {path.name: path.read_bytes() for path in Path().glob("P_iter_8.*")}
        assert there.items() <= written.items()
        assert "P_iter_8.solverstate" not in there or "P_iter_8.caffemodel" in there
        assert read_state("P_iter_7.solverstate", LAYOUT).iteration == 7
        left += len(list(Path().glob(".P_iter_8.*")))
    assert left  # the unfinished file has a name of its own,
    prepare_snapshots(Snapshots("P"))  # until the next training with this prefix
    assert not list(Path().glob(".P_iter_*"))
    assert Path("P_iter_7.caffemodel").exists()


def test_only_leftovers_of_this_prefix_are_removed(net: Net) -> None:
    ending = "0123456789ab.ristretto"
    names = [f".P_iter_8.caffemodel.{ending}", f".PP_iter_8.caffemodel.{ending}", ".P_iter_8.caffemodel.mine"]
    for name in [*names, f"P_iter_8.caffemodel.{ending}"]:
        Path(name).touch()
    prepare_snapshots(Snapshots("P"))
    assert [name for name in names if Path(name).exists()] == names[1:]
    assert Path(f"P_iter_8.caffemodel.{ending}").exists()


# --- what is read


def test_the_weights_are_found_next_to_a_state_that_was_moved(net: Net) -> None:
    Path("out").mkdir()
    write_snapshot(Snapshots("out/P"), net, STATE, WEIGHTS)
    Path("out").rename("elsewhere")
    assert read_state("elsewhere/P_iter_7.solverstate", LAYOUT).learned_net == "elsewhere/P_iter_7.caffemodel"


def test_missing_weights_are_reported_with_both_places(net: Net) -> None:
    Path("out").mkdir()
    write_solver_state("out/s", 7, 0, "gone/P.caffemodel", STATE.history)
    assert fault("out/s") == (
        ": its weights are neither at gone/P.caffemodel nor at out/P.caffemodel. Put them in the folder of the state."
    )
    write_solver_state("out/s", 7, 0, "", STATE.history)
    assert fault("out/s") == ": names no weights file. Use only the weights, with --weights."


def test_a_state_of_another_solver_type_is_refused(net: Net) -> None:
    write_snapshot(Snapshots("P"), net, STATE, WEIGHTS)
    said = fault("P_iter_7.solverstate", [*LAYOUT, *LAYOUT])
    assert "its history has 2 arrays; expected 4 for this solver type and 2 trainable parameters" in said
    assert "from a solver type other than Adam and AdaDelta" in said
    write_snapshot(Snapshots("P"), net, SolverState(7, 2, STATE.history * 2), WEIGHTS)
    assert fault("P_iter_7.solverstate").endswith("and 2 trainable parameters. It seems to be from Adam or AdaDelta.")


def test_a_state_of_another_net_is_refused(net: Net) -> None:
    write_snapshot(Snapshots("P"), net, STATE, WEIGHTS)
    assert fault("P_iter_7.solverstate", LAYOUT[:1]).endswith("It seems to be from Adam or AdaDelta.")
    assert fault("P_iter_7.solverstate", [*LAYOUT, ("b/0", (1,))]).endswith("It seems to be from another net.")
    assert fault("P_iter_7.solverstate", [("fc/0", (3, 3)), ("fc/1", (2,))]) == (
        ": history 0 has shape 2x3, but parameter fc/0 of this net has 3x3. It seems to be from another net."
    )


def test_history_that_is_not_finite_is_refused(net: Net) -> None:
    history = (STATE.history[0], np.array([1, np.nan], np.float32))
    write_snapshot(Snapshots("P"), net, SolverState(7, 2, history), WEIGHTS)
    assert fault("P_iter_7.solverstate").startswith(": history 1, of parameter fc/1, contains NaN")


def test_legacy_shapes_fit_by_their_last_extents(net: Net) -> None:
    Path("m").touch()
    blobs = [
        new("BlobProto", num=1, channels=1, height=2, width=3, data=range(6)),
        new("BlobProto", num=1, channels=1, height=1, width=2, data=[8, 9]),
    ]
    Path("s").write_bytes(new("SolverState", iter=3, learned_net="m", history=blobs).SerializeToString())
    state = read_state("s", LAYOUT)
    assert state.history[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state.current_step == 0


def test_every_truncation_of_a_state_is_reported_in_one_line(net: Net) -> None:
    for name in ("s", "s.h5"):
        write_solver_state(name, 7, 0, "m", STATE.history)
        data = Path(name).read_bytes()
        for size in range(0, len(data), max(len(data) // 40, 1)):
            Path(name).write_bytes(data[:size])
            fault(name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b'iter: 3 learned_net: "m"\n', "is damaged or not a solver state"),
        (bytes(100), "is damaged or not a solver state"),
        (new("SolverState", iter=-1, learned_net="m").SerializeToString(), "invalid iteration -1"),
        (
            new("SolverState", iter=1, history=[new("BlobProto", shape=new("BlobShape", dim=[2**40]))]),
            "history 0: invalid extent 1099511627776",
        ),
    ],
)
def test_damaged_states(net: Net, content: Any, said: str) -> None:
    Path("s").write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    assert said in fault("s")


def test_weights_given_as_a_state_are_reported(net: Net) -> None:
    model = write_snapshot(Snapshots("P"), net, STATE, WEIGHTS)
    assert fault(model) == (
        ": the file is not a solver state. "
        "Use weights as --weights, and the .solverstate from the same snapshot as --snapshot."
    )
    model = write_snapshot(Snapshots("P", hdf5=True), net, STATE, WEIGHTS)
    assert fault(model).startswith(": the file is not a solver state: `iter` is missing")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("iter", "three", "`iter` is not an integer"),
        ("iter", [1, 2], "`iter` is not an integer"),
        ("learned_net", 3, "`learned_net` is not a file name"),
        ("history", 3, "the file has no history"),
        ("history/1", "x", "history 1: expected numbers, got type object"),
    ],
)
def test_hdf5_states_with_something_else_in_them(net: Net, name: str, data: Any, said: str) -> None:
    write_solver_state("s.h5", 7, 0, "m", STATE.history)
    with h5py.File("s.h5", "a") as file:
        del file[name]
        file[name] = data
    assert said in fault("s.h5")


def test_the_content_and_not_the_name_tells_the_format(net: Net) -> None:
    write_snapshot(Snapshots("P", hdf5=True), net, STATE, WEIGHTS)
    Path("P_iter_7.solverstate.h5").rename("state")
    assert read_state("state", LAYOUT).iteration == 7


def test_states_that_others_wrote_in_another_order_are_read(net: Net) -> None:
    Path("m").touch()
    first, second = (message_class("SolverState")(**fields) for fields in ({"current_step": 4}, {"iter": 9}))
    Path("s").write_bytes(first.SerializeToString() + second.SerializeToString() + b"\x12\x01m")
    assert read_solver_state("s").iteration == 9
    assert json.dumps(read_solver_state("s").learned_net) == '"m"'
