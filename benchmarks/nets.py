"""The nets that are timed, and their files: a prototxt, weights, and databases of images that are made up.

Labels are what the float net says of the images, so that its accuracy is 1 and a search has something to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_up import densenet, googlenet, mobilenet, prelu_resnet, statistics
from benchmarks.real_images import real_images, shared_data
from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.caffe_io.messages import TEST, TRAIN, new
from ristretto_cli.caffe_io.net_file import NetFile, read_net
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.caffe_io.weights import write_weights
from ristretto_cli.datasets.datum import plain_datum
from ristretto_cli.datasets.new_database import Backend, new_database
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import fill_weights
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.sources.open import DataLayers

_ROOT = Path(__file__).resolve().parents[1]
_BLOCKS = 8  # an image is a board of so many coloured blocks a side, under noise
_TRAIN_BATCHES = 2  # of ranges; reading goes round


@dataclass(frozen=True)
class Benchmark:
    """A net to be timed. model: a prototxt's path, or what makes its text. image: a record's (C, H, W). batch: images a
    pass. images: as many as a search scores a net with. weights: their path in the folder of shared models; empty for
    those that are made up."""

    model: Path | Callable[[], str]
    image: tuple[int, int, int]
    batch: int
    images: int
    weights: str = ""

    def net_file(self) -> NetFile:
        """The net, as its prototxt has it."""
        if isinstance(self.model, Path):
            return read_net(self.model)
        parsed = parse(self.model(), "NetParameter", self.model.__name__)
        places = [parsed.where("layer", i) for i in range(len(parsed.message.layer))]
        return NetFile(parsed.file, parsed.message, tuple(places))


def _model(name: str) -> Path:
    return _ROOT / "models" / name / "train_val.prototxt"


_GREY, _SMALL, _LARGE = (1, 28, 28), (3, 32, 32), (3, 256, 256)
NETS = {
    "lenet": Benchmark(_model("lenet"), _GREY, 100, 2000, "lenet/lenet_iter_10000.caffemodel"),
    "cifar10_full": Benchmark(
        _model("cifar10_full"), _SMALL, 100, 2000, "cifar10_full_v1/cifar10_full_iter_70000.caffemodel"
    ),
    "resnet20": Benchmark(
        _model("resnet20"), _SMALL, 100, 2000, "resnet20_cifar10/cifar10_res20_iter_64000.caffemodel"
    ),
    "squeezenet_v1.0": Benchmark(
        _model("squeezenet_v1.0"), _LARGE, 25, 500, "squeezenet_v1.0/squeezenet_v1.0_decoded.caffemodel"
    ),
    "caffenet": Benchmark(Path(__file__).with_name("caffenet.prototxt"), _LARGE, 10, 500),
    "vgg16": Benchmark(_model("vgg16"), _LARGE, 5, 100),
    "googlenet": Benchmark(googlenet, (3, 128, 128), 10, 500),
    "mobilenet": Benchmark(mobilenet, (3, 128, 128), 10, 500),
    "densenet": Benchmark(densenet, _SMALL, 50, 1000),
    "prelu_resnet": Benchmark(prelu_resnet, (3, 64, 64), 25, 500),
}


@dataclass(frozen=True)
class Prepared:
    """The files of a benchmark, by absolute paths. made_up: whether the weights are."""

    model: str
    weights: str
    batch: int
    images: int
    made_up: bool


def prepare_real(benchmark: Benchmark, calibration: int, folder: Path) -> Prepared | None:
    """As prepare, with real images, of which `calibration` are for ranges; None without trained weights or images."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = _shared(benchmark.weights)
    real = None if weights is None else real_images(benchmark.image, calibration, folder)
    if real is None:
        return None
    model = folder / "train_val.prototxt"
    write_atomically(
        model, _text(benchmark, {TRAIN: real.train, TEST: real.test}, real.mean or _mean(benchmark, folder))
    )
    scored = min(benchmark.images, real.test_images) // benchmark.batch * benchmark.batch
    return Prepared(str(model), str(weights), benchmark.batch, scored, made_up=False)


def prepare(benchmark: Benchmark, folder: Path, *, train_batches: int = _TRAIN_BATCHES) -> Prepared:
    """Write a benchmark's files into a folder, which is empty or not yet there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    databases = {TRAIN: folder / "train_lmdb", TEST: folder / "test_lmdb"}
    model = folder / "train_val.prototxt"
    write_atomically(model, _text(benchmark, databases, _mean(benchmark, folder)))
    pictures = images(benchmark.images, benchmark.image, rng)
    seen = pictures[: train_batches * benchmark.batch]
    _write_database(databases[TRAIN], seen, [0] * len(seen))
    _write_database(databases[TEST], pictures, [0] * len(pictures))
    shared = _shared(benchmark.weights)
    weights = shared or folder / "made_up.caffemodel"
    if shared is None:
        _make_weights(model, weights, rng)
    batches = benchmark.images // benchmark.batch
    labels = _said(load_net(str(model), str(weights), NetState(TEST), rng=rng), batches, rng)
    for file in databases[TEST].iterdir():
        file.unlink()
    databases[TEST].rmdir()
    _write_database(databases[TEST], pictures, labels)
    return Prepared(str(model), str(weights), benchmark.batch, batches * benchmark.batch, shared is None)


def images(count: int, shape: tuple[int, int, int], rng: np.random.Generator) -> Any:
    """Pictures of bytes, (count, C, H, W): blocks of random colours with noise upon them."""
    channels, height, width = shape
    block = -(-max(height, width) // _BLOCKS)
    pictures = np.empty((count, *shape), np.uint8)
    for picture in pictures:
        colours = rng.integers(0, 224, (channels, _BLOCKS, _BLOCKS), np.uint8)
        board = colours.repeat(block, axis=1).repeat(block, axis=2)[:, :height, :width]
        picture[:] = board + rng.integers(0, 32, shape, np.uint8)
    return pictures


def _text(benchmark: Benchmark, databases: dict[int, Path], mean: Path) -> str:
    """The net's prototxt, with these databases by phase, this mean file, and batches of the benchmark's size."""
    message = benchmark.net_file().message
    for layer in message.layer:
        if layer.type == "Data":
            layer.data_param.source = str(databases[layer.include[0].phase])
            layer.data_param.batch_size = benchmark.batch
            if layer.transform_param.HasField("mean_file"):
                layer.transform_param.mean_file = str(mean)
    return str(to_text(message))


def _mean(benchmark: Benchmark, folder: Path) -> Path:
    """A mean file that is made up."""
    channels, height, width = benchmark.image
    mean = new("BlobProto", num=1, channels=channels, height=height, width=width)
    mean.data.extend([112.0] * (channels * height * width))
    write_atomically(folder / "mean.binaryproto", mean.SerializeToString())
    return folder / "mean.binaryproto"


def _write_database(folder: Path, pictures: Any, labels: list[int]) -> None:
    with new_database(str(folder), Backend.LMDB) as database:
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            database.put(b"%08d" % i, plain_datum(picture.tobytes(), picture.shape, label))


def _shared(weights: str) -> Path | None:
    """The trained weights, where the folder of shared data is there and has them."""
    path = shared_data() / "models" / weights
    return path if weights and path.is_file() else None


def _make_weights(model: Path, weights: Path, rng: np.random.Generator) -> None:
    net = fill_weights(build(read_net(model), NetState(TEST), DataLayers()), rng=rng)
    with DataLoader(net) as feeds:
        net = replace(net, weights={**net.weights, **statistics(net, feeds.next())})
    layers = {layer.name: [net.weights[param.key] for param in layer.params] for layer in net.layers if layer.params}
    write_weights(weights, layers)


def _said(net: Net, batches: int, rng: np.random.Generator) -> list[int]:
    """The classes that a net takes its TEST images for."""
    scores = next(layer.bottoms[0].name for layer in net.layers if layer.type == "Accuracy")
    session = compile_net(net, lambda run, ops: {scores: run.final[scores]}, rng=rng)
    labels: list[int] = []
    with DataLoader(net) as feeds:
        for _ in range(batches):
            values = session.run(feeds.next())[scores]
            labels += values.reshape(len(values), -1).argmax(1).tolist()
    return labels
