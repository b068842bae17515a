"""Caffe's data tools as commands: their stdout, their stderr and the files that they write."""

from __future__ import annotations

import importlib
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.weights import read_blob
from ristretto_cli.cli.main import run
from ristretto_cli.datasets.new_database import Backend
from ristretto_cli.sources.database import LevelDb, Lmdb

GLOG = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] (.*)$")
COMMANDS = [
    "compute_image_mean",
    "convert_cifar_data",
    "convert_imageset",
    "convert_mnist_data",
    "extract_features",
]


class Terminal:
    """Runs commands and keeps what they said; every line of stderr has to be of the log, or `ristretto: ...`."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out: list[str] = []
        self.log: list[str] = []
        self.faults: list[str] = []

    def __call__(self, *args: str, code: int = 0) -> None:
        self._capfd.readouterr()
        assert run(args) == code
        out, err = self._capfd.readouterr()
        self.out, self.log, self.faults = out.splitlines(), [], []
        for line in err.splitlines():
            match = GLOG.match(line)
            (self.log if match else self.faults).append(match[1] if match else line)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    monkeypatch.chdir(tmp_path)
    return Terminal(capfd)


@pytest.fixture
def images(terminal: Terminal) -> None:
    """Two gray images of one pixel, 10 and 20, in the folder `images`, with labels 3 and 4 in `list.txt`."""
    Path("images").mkdir()
    for name, value in (("a.png", 10), ("b.png", 20)):
        assert cv2.imwrite(f"images/{name}", np.full((1, 1), value, np.uint8))
    Path("list.txt").write_text("a.png 3\nb.png 4\n")


def keys(path: str, kind: Any = Lmdb) -> list[bytes]:
    database = kind(Path(path))
    found = [key for key, _ in database.records()]
    database.close()
    return found


# --- what each does


@pytest.mark.usefixtures("images")
def test_convert_imageset_writes_a_database(terminal: Terminal) -> None:
    terminal("convert_imageset", "-backend", "lmdb", "images/", "list.txt", "db")
    assert terminal.out == ["db: 2 images"]
    assert terminal.log == ["A total of 2 images.", "Opened lmdb db", "Processed 2 files."]
    assert keys("db") == [b"00000000_a.png", b"00000001_b.png"]
    assert sorted(path.name for path in Path("db").iterdir()) == ["data.mdb", "lock.mdb"]


@pytest.mark.usefixtures("images")
def test_convert_imageset_takes_caffes_flags_in_any_place(terminal: Terminal) -> None:
    pytest.importorskip("plyvel", reason="LevelDB needs plyvel")
    terminal(
        *("convert_imageset", "--gray", "--shuffle=true", "images/", "--backend=leveldb", "-encode_type", "png"),
        *("list.txt", "--resize_width=2", "--resize_height", "3", "--check_size", "--noencoded", "db"),
    )
    assert terminal.log == [
        "--check_size has no effect with --resize_width and --resize_height: all images become that size.",
        "Shuffling data",
        "A total of 2 images.",
        "encode_type specified, assuming encoded=true.",
        "Opened leveldb db",
        "Processed 2 files.",
    ]
    assert len(keys("db", LevelDb)) == 2


@pytest.mark.usefixtures("images")
def test_convert_imageset_says_how_many_images_are_left_out(terminal: Terminal) -> None:
    Path("list.txt").write_text("a.png 3\ngone.png 4\n")
    terminal("convert_imageset", "images/", "list.txt", "db")
    assert terminal.out == ["db: 1 images, 1 could not be read"]
    assert "Could not open or find file images/gone.png" in terminal.log


@pytest.mark.usefixtures("images")
def test_shuffling_depends_only_on_the_seed(terminal: Terminal) -> None:
    Path("list.txt").write_text("".join(f"a.png {i}\n" for i in range(20)))
    contents = []
    for db, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        terminal("convert_imageset", "--shuffle", f"--seed={seed}", "images/", "list.txt", db)
        database = Lmdb(Path(db))
        contents.append(list(database.records()))
        database.close()
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.usefixtures("images")
def test_compute_image_mean_prints_and_logs_the_means_and_writes_the_image(terminal: Terminal) -> None:
    terminal("convert_imageset", "--gray", "images/", "list.txt", "db")
    terminal("compute_image_mean", "db", "mean.binaryproto")
    means = ["Number of channels: 1", "mean_value channel [0]: 15"]
    assert terminal.out == means
    steps = ["Opened lmdb db", "Starting iteration", "Processed 2 files.", "Write to mean.binaryproto"]
    assert terminal.log == [*steps, *means]
    assert read_blob("mean.binaryproto").tolist() == [[[[15]]]]


@pytest.mark.usefixtures("images")
def test_compute_image_mean_needs_no_output(terminal: Terminal) -> None:
    terminal("convert_imageset", "images/", "list.txt", "db")
    terminal("compute_image_mean", "--backend=lmdb", "db")
    assert terminal.out == ["Number of channels: 3", *(f"mean_value channel [{i}]: 15" for i in range(3))]
    assert sorted(path.name for path in Path().iterdir()) == ["db", "images", "list.txt"]


def test_convert_mnist_data_writes_a_database(terminal: Terminal) -> None:
    Path("i").write_bytes(struct.pack(">4I", 2051, 2, 1, 1) + bytes(2))
    Path("l").write_bytes(struct.pack(">2I", 2049, 2) + bytes(2))
    terminal("convert_mnist_data", "i", "l", "db", "--backend", "lmdb")
    assert terminal.out == ["db: 2 images"]
    assert keys("db") == [b"00000000", b"00000001"]


def test_convert_cifar_data_writes_two_databases(terminal: Terminal) -> None:
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        with Path(name).open("wb") as file:
            file.truncate(10000 * 3073)
    terminal("convert_cifar_data", ".", ".", "lmdb")
    assert terminal.out == ["cifar10_train_lmdb: 50000 images", "cifar10_test_lmdb: 10000 images"]
    assert (len(keys("cifar10_train_lmdb")), keys("cifar10_test_lmdb")[-1]) == (50000, b"09999")


def test_extract_features_writes_the_requested_blobs(terminal: Terminal, two_classes: Any) -> None:
    two_classes()
    terminal("extract_features", "net.caffemodel", "net.prototxt", "fc,conv", "fc.npz,conv_db", "2", "lmdb")
    assert terminal.out == ["fc.npz: fc 10x2", "conv_db: conv 10x2x1x1"]
    assert terminal.log[0] == "Using CPU"
    with np.load("fc.npz") as arrays:
        assert arrays["fc"][0].tolist() == [200 / 256, 50 / 256]
    assert keys("conv_db")[-1] == b"0000000009"


def test_extract_features_runs_on_the_cpu_where_that_is_said(terminal: Terminal, two_classes: Any) -> None:
    two_classes()
    for number, device in enumerate((["CPU"], ["CPU", "0"], ["CPU", "DEVICE_ID=1"])):
        terminal("extract_features", "net.caffemodel", "net.prototxt", "fc", f"{number}.npz", "1", "lmdb", *device)
        assert terminal.log[0] == "Using CPU"


# --- what they refuse

EXTRACT = ("extract_features", "net.caffemodel", "net.prototxt")


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("args", "line", "code"),
    [
        (("convert_imageset", "images/", "list.txt"), "Missing argument 'DB_NAME'.", 2),
        (
            ("convert_imageset", "--resize_width=3", "images/", "list.txt", "db"),
            "--resize_width and --resize_height must be used together",
            2,
        ),
        (
            ("convert_imageset", "--resize_width=32768", "--resize_height=1", "images/", "list.txt", "db"),
            "Invalid value for '--resize_width': 32768 is not in the range 0<=x<=32767.",
            2,
        ),
        (
            ("convert_imageset", "--backend=sqlite", "images/", "list.txt", "db"),
            "Invalid value for '--backend': 'sqlite' is not one of 'lmdb', 'leveldb'.",
            2,
        ),
        (
            ("convert_imageset", "--encode_type=doc", "images/", "list.txt", "db"),
            '--encode_type: images cannot be encoded as "doc". Such as png or jpg.',
            1,
        ),
        (("convert_imageset", "images/", "gone.txt", "db"), "gone.txt: this file does not exist", 1),
        (("convert_imageset", "images/", "images", "db"), "images: is a folder, not a file", 1),
        (
            ("convert_imageset", "images/", "list.txt", "images"),
            "images: already exists. Remove it first, or choose another name.",
            1,
        ),
        (("compute_image_mean", "gone"), "gone: this database does not exist. Use the folder of the database.", 1),
        (("compute_image_mean", "images"), "images is not an LMDB database: no data.mdb in it", 1),
        (("compute_image_mean", "images", "images"), "images: is a folder, not a file. Add a file name.", 1),
        (
            ("convert_mnist_data", "list.txt", "list.txt", "db"),
            "list.txt: Incorrect image file magic. "
            "The image file comes first, then the label file; both in idx format.",
            1,
        ),
        (
            ("convert_cifar_data", "images", ".", "hdf5"),
            "Invalid value for 'DB_TYPE': 'hdf5' is not one of 'lmdb', 'leveldb'.",
            2,
        ),
        (
            (*EXTRACT, "fc,conv", "a.npz", "1", "lmdb"),
            "the number of blob names and dataset names must be equal, not 2 and 1",
            2,
        ),
        (
            (*EXTRACT, "fc", "a.npz", "0", "lmdb"),
            "Invalid value for 'NUM_MINI_BATCHES': 0 is not in the range x>=1.",
            2,
        ),
        (
            (*EXTRACT, "fc", "a.npz", "1", "lmdb", "GPU", "DEVICE_ID=x"),
            "Invalid value for '[DEVICE_ID]': invalid GPU \"x\": "
            "expected a device number such as 0, a list such as 0,1, or all",
            2,
        ),
        ((*EXTRACT, "fc", "net.prototxt.npz", "1", "lmdb"), "net.prototxt: this file does not exist", 1),
        (
            ("extract_features", "w.npz", "net.prototxt", "fc", "w.npz", "1", "lmdb"),
            "w.npz: is an input of this command. Choose another name for the output.",
            1,
        ),
    ],
)
def test_a_bad_command_line_is_reported_in_a_line_and_nothing_is_written(
    terminal: Terminal, args: tuple[str, ...], line: str, code: int
) -> None:
    before = sorted(Path().rglob("*"))
    terminal(*args, code=code)
    assert terminal.out == []
    assert terminal.faults[0] == f"ristretto: {line}"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.usefixtures("images")
def test_leveldb_without_plyvel_names_what_to_install(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    terminal("convert_imageset", "--backend=leveldb", "images/", "list.txt", "db", code=1)
    assert terminal.faults == ["ristretto: db: writing LevelDB needs plyvel. pip install 'ristretto-cli[leveldb]'"]
    assert sorted(path.name for path in Path().iterdir()) == ["images", "list.txt"]


@pytest.mark.usefixtures("images", "default_signals")
def test_an_interrupted_process_leaves_nothing(terminal: Terminal) -> None:
    Path("list.txt").write_text("a.png 1\n" * 2000)
    code = (
        "import sys, os, signal\n"
        "from ristretto_cli.datasets.new_database import NewDatabase\n"
        "put = NewDatabase.put\n"
        "def stop(self, key, value):\n"
        "    put(self, key, value)\n"
        "    if self.count == 1500:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "NewDatabase.put = stop\n"
        "from ristretto_cli.cli.main import run\n"
        "sys.exit(run(['convert_imageset', 'images/', 'list.txt', 'db']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "ristretto: interrupted"
    assert sorted(path.name for path in Path().iterdir()) == ["images", "list.txt"]


# --- their help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_every_argument_and_every_flag(terminal: Terminal, name: str) -> None:
    terminal(name, "--help")
    shown = "\n".join(terminal.out)
    for param in importlib.import_module(f"ristretto_cli.cli.{name}").command.params:
        if isinstance(param, click.Argument):
            assert str(param.metavar) in shown
        else:
            assert param.hidden or f"--{param.name} " in shown
            assert param.help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_backends_are_those_that_can_be_written(name: str) -> None:
    command = importlib.import_module(f"ristretto_cli.cli.{name}").command
    (choices,) = (param.type.choices for param in command.params if param.name in ("backend", "db_type"))
    assert list(choices) == [backend.value for backend in Backend]
