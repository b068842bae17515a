"""The recorded networks of the shared folder, made ready to run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).resolve().parents[3] / "shared"))
CACHE = os.environ.get("RISTRETTO_DATA")


@dataclass(frozen=True)
class Recorded:
    """A recorded network: its net file with the paths of this machine, its weights, and how it was run."""

    folder: Path  # of what was recorded
    model: str
    weights: str
    iterations: int
    error_margin_percent: float
    images: int  # that one trial scores


# name: (weights, iterations, error margin in percent, images)
NETS = {
    "lenet": ("lenet/lenet_iter_10000.caffemodel", 100, 1.0, 10_000),
    "cifar10_full": ("cifar10_full_v1/cifar10_full_iter_70000.caffemodel", 20, 2.0, 2_000),
    "resnet20": ("resnet20_cifar10/cifar10_res20_iter_64000.caffemodel", 20, 2.0, 2_000),
    "squeezenet_v1.0": ("squeezenet_v1.0/squeezenet_v1.0_decoded.caffemodel", 4, 3.0, 100),
}


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the databases: the one that RISTRETTO_DATA names, filled where it is empty, or a new one."""
    if not (SHARED / "data" / "unpack").exists():
        pytest.skip("needs the recorded networks of the shared folder: set RISTRETTO_SHARED")
    folder = Path(CACHE) if CACHE else tmp_path_factory.mktemp("databases")
    subprocess.run(["bash", SHARED / "data" / "unpack", folder], check=True, timeout=600)
    return folder


@pytest.fixture(scope="session")
def imagenet(databases: Path) -> Path:
    """The same folder, with the databases of SqueezeNet."""
    if not (databases / "dev_cal227_lmdb" / "data.mdb").exists():
        script = SHARED / "data" / "make_imagenet_lmdb.py"
        subprocess.run([sys.executable, script, databases], check=True, timeout=600)
    return databases


@pytest.fixture
def recorded(request: pytest.FixtureRequest, databases: Path, tmp_path: Path) -> Callable[[str], Recorded]:
    """Makes a recorded network ready, by its name."""

    def prepare(name: str) -> Recorded:
        if name == "squeezenet_v1.0":
            request.getfixturevalue("imagenet")
        weights, iterations, error_margin, images = NETS[name]
        folder = SHARED / "reference" / name
        model = tmp_path / "train_val.prototxt"
        text = (folder / "train_val.prototxt").read_text()
        model.write_text(text.replace('"DATA/', f'"{databases}/'))
        path = SHARED / "data" / "models" / weights
        return Recorded(folder, str(model), str(path), iterations, error_margin, images)

    return prepare
