"""The nets under models/: they build for both phases, public weights fit, and the example keeps its word."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN, message_class, new
from ristretto_cli.caffe_io.net_file import read_net, read_solver
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import load_weights
from ristretto_cli.scoring.metrics import default_score
from ristretto_cli.scoring.score import score_net
from ristretto_cli.sources.open import DataLayers

from .conftest import copy_writable

REPO = Path(__file__).resolve().parent.parent
MODELS = REPO / "models"
SHARED = Path(os.environ.get("RISTRETTO_SHARED", REPO.parent / "shared"))

# folder: (databases with the shape of their images, number of parameters)
GREY, COLOUR, IMAGE = (1, 28, 28), (3, 32, 32), (3, 256, 256)
NETS = {
    "digits": ({"digits_train_lmdb": (1, 8, 8), "digits_test_lmdb": (1, 8, 8)}, 12_706),
    "lenet": ({"mnist_train_lmdb": GREY, "mnist_test_lmdb": GREY}, 431_080),
    "cifar10_full": ({"cifar10_train_lmdb": COLOUR, "cifar10_test_lmdb": COLOUR}, 89_578),
    "resnet20": ({"cifar10_train_lmdb": COLOUR, "cifar10_test_lmdb": COLOUR}, 274_847),
    "squeezenet_v1.0": ({"ilsvrc12_train_lmdb": IMAGE, "ilsvrc12_val_lmdb": IMAGE}, 1_248_424),
    "alexnet": ({"ilsvrc12_train_lmdb": IMAGE, "ilsvrc12_val_lmdb": IMAGE}, 60_965_224),
    "caffenet": ({"ilsvrc12_train_lmdb": IMAGE, "ilsvrc12_val_lmdb": IMAGE}, 60_965_224),
    "googlenet": ({"ilsvrc12_train_lmdb": IMAGE, "ilsvrc12_val_lmdb": IMAGE}, 13_378_280),
    "mobilenet_v1": ({"ilsvrc12_train_lmdb": IMAGE, "ilsvrc12_val_lmdb": IMAGE}, 4_253_891),
    "vgg16": ({"ilsvrc12_train_lmdb": IMAGE, "ilsvrc12_val_lmdb": IMAGE}, 138_357_544),
}
SOLVERS = [
    "digits/solver.prototxt",
    "digits/solver_finetune.prototxt",
    "lenet/solver.prototxt",
    "lenet/solver_finetune.prototxt",
    "cifar10_full/solver_finetune.prototxt",
    "resnet20/solver_finetune.prototxt",
    "squeezenet_v1.0/solver_finetune.prototxt",
    "vgg16/solver_finetune.prototxt",
]
DEPLOYED = {"alexnet": 60_965_224, "caffenet": 60_965_224, "googlenet": 6_998_552, "mobilenet_v1": 4_253_891}


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the databases of a net, one image in each, and a mean file."""
    databases, _ = NETS[request.param]
    for name, shape in databases.items():
        write_one(tmp_path / name, shape)
    mean = new("BlobProto", num=1, channels=3, height=32, width=32, data=[0.0] * 3072)
    (tmp_path / "mean.binaryproto").write_bytes(mean.SerializeToString())
    monkeypatch.chdir(tmp_path)
    return MODELS / request.param


def write_one(folder: Path, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    pixels = bytes(channels * height * width)
    datum = new("Datum", channels=channels, height=height, width=width, data=pixels, label=0)
    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        transaction.put(b"00000000", datum.SerializeToString())


def net_of(folder: Path, phase: int) -> Net:
    return build(read_net(folder / "train_val.prototxt"), NetState(phase), DataLayers())


def names(blobs: object) -> list[str]:
    return [blob.name for blob in blobs]  # type: ignore[attr-defined]


def test_every_prototxt_is_known_here() -> None:
    written_by_use = "quantized.prototxt"
    found = [p.relative_to(MODELS).as_posix() for p in MODELS.rglob("*.prototxt") if p.name != written_by_use]
    assert sorted(found) == sorted(
        [
            *(f"{name}/train_val.prototxt" for name in NETS),
            *(f"{name}/deploy.prototxt" for name in DEPLOYED),
            *SOLVERS,
        ]
    )


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_a_readme_that_names_its_databases(name: str) -> None:
    text = (MODELS / name / "readme.md").read_text(encoding="utf-8")
    assert [database for database in NETS[name][0] if database not in text] == []


@pytest.mark.parametrize("data", NETS, indirect=True)
def test_builds_for_training_with_the_loss_as_its_output(data: Path) -> None:
    losses = ["loss1/loss", "loss2/loss", "loss3/loss3"] if data.name == "googlenet" else ["loss"]
    assert names(net_of(data, TRAIN).outputs) == losses


@pytest.mark.parametrize("data", ["digits", "lenet", "cifar10_full", "resnet20"], indirect=True)
def test_builds_for_testing_with_accuracy_and_loss(data: Path) -> None:
    assert names(net_of(data, TEST).outputs) == ["accuracy", "loss"]


@pytest.mark.parametrize("data", [name for name in NETS if "ilsvrc12_val_lmdb" in NETS[name][0]], indirect=True)
def test_imagenet_nets_are_scored_by_top_1_and_top_5(data: Path) -> None:
    net = net_of(data, TEST)
    assert names(net.outputs)[:2] == ["accuracy_top1", "accuracy_top5"]
    assert default_score(net) == "accuracy_top1"
    top_k = {layer.name: layer.message.accuracy_param.top_k for layer in net.layers if layer.type == "Accuracy"}
    assert top_k == {"accuracy_top1": 1, "accuracy_top5": 5}


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("data", NETS, indirect=True)
def test_has_as_many_parameters_as_its_paper_or_readme_says(data: Path, phase: int) -> None:
    params = {param.key: param.shape for layer in net_of(data, phase).layers for param in layer.params}
    assert sum(int(np.prod(shape)) for shape in params.values()) == NETS[data.name][1]


@pytest.mark.parametrize("name", DEPLOYED)
@pytest.mark.parametrize("data", ["caffenet"], indirect=True)  # a folder with the databases
def test_deployed_nets_have_the_layers_of_their_training_nets(name: str, data: Path) -> None:
    deployed = build(read_net(MODELS / name / "deploy.prototxt"), NetState(TEST), DataLayers())
    trained = {layer.name: layer for layer in net_of(MODELS / name, TEST).layers}
    assert names(deployed.outputs) == ["prob"]
    assert deployed.outputs[0].shape[:2] == (10, 1000)
    own = [layer for layer in deployed.layers if layer.name not in ("data", "prob")]
    assert all(layer.message == trained[layer.name].message for layer in own)
    assert sum(int(np.prod(param.shape)) for layer in own for param in layer.params) == DEPLOYED[name]
    left_out = [name for name in trained if name not in {layer.name for layer in deployed.layers}]
    assert all(name.startswith(("loss", "accuracy")) for name in left_out)


def test_vgg16_is_fine_tuned_on_the_whole_validation_set() -> None:
    solver = read_solver(MODELS / "vgg16/solver_finetune.prototxt").message
    assert (solver.net, solver.test_iter[0]) == ("quantized.prototxt", 5000)


PUBLIC = [
    ("lenet", "lenet/lenet_iter_10000.caffemodel"),
    ("cifar10_full", "cifar10_full_v1/cifar10_full_iter_70000.caffemodel"),
    ("squeezenet_v1.0", "squeezenet_v1.0/squeezenet_v1.0_decoded.caffemodel"),
    ("resnet20", "resnet20_cifar10/cifar10_res20_iter_64000.caffemodel"),
]


@pytest.mark.parametrize(("data", "file"), PUBLIC, indirect=["data"])
def test_public_weights_fit_layer_by_layer(data: Path, file: str) -> None:
    path = SHARED / "data" / "models" / file
    if not path.exists():
        pytest.skip(f"needs {file} in the shared folder: set RISTRETTO_SHARED")
    weights = read_weights(path)
    net = load_weights(net_of(data, TEST), weights, rng=np.random.default_rng(0))
    assert [layer.name for layer in net.layers if layer.params] == list(weights.layers)


# --- the embedded example


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example's folder with its databases."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    copy_writable(MODELS / "digits", folder, ignore=shutil.ignore_patterns("*_lmdb", "quantized.prototxt"))
    assert python(folder, "make_lmdb.py").stdout == ("digits_train_lmdb: 1437 images\ndigits_test_lmdb: 360 images\n")
    return folder


def python(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *args], cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_digits_are_numbered_datums_of_8x8_every_fifth_for_testing(digits: Path) -> None:
    with lmdb.open(str(digits / "digits_test_lmdb"), readonly=True, lock=False) as env, env.begin() as view:
        assert [key for key, _ in view.cursor()] == [b"%08d" % i for i in range(360)]
        datum = message_class("Datum").FromString(view.get(b"00000001"))
    # The sixth image, a five, begins with this row
    assert (datum.channels, datum.height, datum.width, datum.label) == (1, 8, 8, 5)
    assert list(datum.data[:8]) == [0, 0, 12, 10, 0, 0, 0, 0]


def test_making_the_databases_again_replaces_them(digits: Path) -> None:
    before = (digits / "digits_test_lmdb" / "data.mdb").read_bytes()
    (digits / "digits_test_lmdb" / "left_over").touch()
    python(digits, "make_lmdb.py")
    assert (digits / "digits_test_lmdb" / "data.mdb").read_bytes() == before
    assert not (digits / "digits_test_lmdb" / "left_over").exists()
    assert list(digits.glob(".digits_*")) == []


def test_digits_weights_are_small_and_fit(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits)
    file = digits / "digits.caffemodel"
    assert file.stat().st_size < 100_000
    net = load_weights(net_of(digits, TEST), read_weights(file), rng=np.random.default_rng(0))
    assert net.weights["conv1/0"].shape == (12, 1, 5, 5)


def test_digits_accuracy_is_what_the_readme_says(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "356 of the 360 test images are classified correctly: 0.9889" in (digits / "readme.md").read_text(
        encoding="utf-8"
    )
    monkeypatch.chdir(digits)
    weights = read_weights("digits.caffemodel")
    rng = np.random.default_rng(0)
    scores = score_net(load_weights(net_of(digits, TEST), weights, rng=rng), 10, rng=rng)
    assert scores.of("accuracy") == pytest.approx(356 / 360, abs=1e-6)


def run_demo(digits: Path, place: Path, *, with_torch: bool) -> str:
    """What the demo prints, with this Python in the place of a virtual environment's."""
    check = "" if with_torch else 'case "$*" in *find_spec*) exit 1 ;; esac\n'
    (place / "python").write_text(f'#!/bin/sh\n{check}exec "{sys.executable}" "$@"\n')
    (place / "ristretto").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ristretto_cli "$@"\n')
    for command in place.iterdir():
        command.chmod(0o755)
    done = subprocess.run(
        [digits / "demo.sh", place], cwd=place, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def accuracies(shown: str) -> list[float]:
    lines = shown.splitlines()
    return [float(line.removeprefix("accuracy = ")) for line in lines if line.startswith("accuracy = ")]


def test_the_demo_quantizes_digits_to_4_bits_and_continues_without_torch(digits: Path, tmp_path: Path) -> None:
    shown = run_demo(digits, tmp_path, with_torch=False)
    (score,) = accuracies(shown)
    assert score == pytest.approx(336 / 360, abs=0.01)
    assert "There is no torch here, so the quantized net is not fine-tuned: pip install 'ristretto-cli[train]'" in shown
    trimmed = [m for m in read_net(digits / "quantized.prototxt").message.layer if m.HasField("quantization_param")]
    widths = [(m.quantization_param.bw_params, m.quantization_param.bw_layer_in) for m in trimmed]
    assert widths == [(4, 4)] * 4


def test_the_demo_regains_more_than_half_of_the_loss_by_fine_tuning(digits: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch: pip install 'ristretto-cli[train]'")
    before, at_the_end, after = accuracies(run_demo(digits, tmp_path, with_torch=True))
    assert at_the_end == after  # `train` logs the scores of `test`
    assert after > (before + 356 / 360) / 2


def test_the_script_that_made_the_digits_weights_makes_them_again(digits: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch: pip install 'ristretto-cli[train]'")
    copy = copy_writable(digits, tmp_path / "digits")
    (tmp_path / "ristretto").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ristretto_cli "$@"\n')
    (tmp_path / "ristretto").chmod(0o755)
    (copy / "digits.caffemodel").unlink()
    done = subprocess.run([copy / "train.sh", tmp_path], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    (score,) = accuracies(done.stdout)
    assert score == pytest.approx(356 / 360, abs=0.01)
    made, kept = read_weights(copy / "digits.caffemodel"), read_weights(digits / "digits.caffemodel")
    # Another processor rounds otherwise, and 1,500 iterations make more of it; another seed's weights differ by 1.4.
    difference = np.subtract(made.layers["ip1"][0].array, kept.layers["ip1"][0].array)
    assert np.linalg.norm(difference) / np.linalg.norm(kept.layers["ip1"][0].array) < 0.5
    assert not list(copy.glob("digits_iter_*"))


def test_digits_solver_trains_this_net_and_tests_on_all_its_images() -> None:
    solver = read_solver(MODELS / "digits" / "solver.prototxt").message
    net = read_net(MODELS / "digits" / solver.net).message
    (test_data,) = (m for m in net.layer if m.type == "Data" and m.include[0].phase == TEST)
    assert solver.test_iter[0] * test_data.data_param.batch_size == 360
    finetuning = read_solver(MODELS / "digits" / "solver_finetune.prototxt").message
    assert (finetuning.net, finetuning.test_iter[0]) == ("quantized.prototxt", 10)
