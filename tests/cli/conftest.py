"""A tiny job that works, for tests that break it: a net, its weights and an LMDB of images in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import lmdb
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.weights import write_weights

# One layer a line, so that a layer's line is easy to find.
NET = """name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 2 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""

QUANTIZE = (
    "quantize",
    "--model=net.prototxt",
    "--weights=net.caffemodel",
    "--model_quantized=out.prototxt",
    "--trimming_mode=dynamic_fixed_point",
    "--iterations=1",
    "--calibration_iterations=1",
)
TEST = ("test", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=1", "--json=out.json")
FORWARD = ("forward", "--model=net.prototxt", "--weights=net.caffemodel", "--output=out.npz")
EXPORT = (
    "export",
    "--format=onnx",
    "--model=net.prototxt",
    "--weights=net.caffemodel",
    "--output=out.onnx",
)


def datum(pixels: bytes = bytes(16), *, side: int = 4, label: int = 0) -> bytes:
    """A record: one channel of side x side pixels."""
    return bytes(new("Datum", channels=1, height=side, width=side, data=pixels, label=label).SerializeToString())


def write_lmdb(folder: Path, records: Iterable[tuple[bytes, bytes]]) -> None:
    """An LMDB of these keys and values."""
    environment = lmdb.open(str(folder), map_size=1 << 20, lock=False)
    with environment, environment.begin(write=True) as transaction:
        for key, value in records:
            transaction.put(key, value)


def tiny_weights() -> dict[str, list[np.ndarray]]:
    """Weights for NET: conv 2 x 1 x 3 x 3 and ip 3 x 8, each with a bias."""
    rng = np.random.default_rng(0)
    shapes = {"conv": [(2, 1, 3, 3), (2,)], "ip": [(3, 8), (3,)]}
    return {name: [rng.normal(size=shape) for shape in layer] for name, layer in shapes.items()}


class Job:
    """The folder of a job, and handles to change what lies there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str | bytes) -> None:
        """A file with that content, replacing whatever has the name."""
        data = content.encode() if isinstance(content, str) else content
        (self.folder / name).write_bytes(data)

    def edit(self, old: str, new: str, name: str = "net.prototxt") -> None:
        """Replace one text in a file; it must be there, once."""
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        self.write(name, text.replace(old, new))

    def insert(self, line: str, after: int) -> None:
        """A line in net.prototxt, after line number `after`."""
        lines = (self.folder / "net.prototxt").read_text().splitlines()
        self.write("net.prototxt", "\n".join([*lines[:after], line, *lines[after:]]) + "\n")

    def weights(self, change: Callable[[dict[str, list[np.ndarray]]], None], name: str = "net.caffemodel") -> None:
        """Write the weights again, changed."""
        layers = tiny_weights()
        change(layers)
        write_weights(self.folder / name, layers)

    def records(self, values: Sequence[bytes]) -> None:
        """An LMDB of these values instead of the job's."""
        shutil.rmtree(self.folder / "db")
        write_lmdb(self.folder / "db", [(b"%08d" % i, value) for i, value in enumerate(values)])

    def remove(self, name: str) -> None:
        """Take away a file or a folder."""
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def files(self) -> dict[str, bytes | None]:
        """What lies in the folder, by relative path; None for folders."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(self.folder.rglob("*"))
        }


@pytest.fixture(scope="session")
def good_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny job as it works; not to be changed."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "net.prototxt").write_text(NET)
    write_weights(folder / "net.caffemodel", tiny_weights())
    records = [datum(bytes(range(i, i + 16)), label=i % 3) for i in range(4)]
    write_lmdb(folder / "db", [(b"%08d" % i, record) for i, record in enumerate(records)])
    return folder


@pytest.fixture
def job(good_job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The tiny job in a folder of its own, which is the current one."""
    folder = tmp_path / "job"
    shutil.copytree(good_job, folder)
    monkeypatch.chdir(folder)
    return Job(folder)
