"""What is fuzzed: each target reads bytes as a file of some kind, as far as the program itself would go.

A target returns, or raises RistrettoError where the bytes are at fault. Anything else is a finding.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import h5py
import lmdb
import numpy as np

from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message, new
from ristretto_cli.caffe_io.net_file import read_net, read_solver
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.caffe_io.prototxt import parse, to_text
from ristretto_cli.caffe_io.solverstate import write_solver_state
from ristretto_cli.caffe_io.upgrade import upgrade
from ristretto_cli.caffe_io.weights import read_blob, read_net_binary, read_weights, write_weights
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import fill_weights, load_weights
from ristretto_cli.quantize.pins import read_settings
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.engine import record
from ristretto_cli.sources import image_records
from ristretto_cli.sources.images import COLOR, GRAY, NATIVE, decode, resize
from ristretto_cli.sources.open import DataLayers, open_source
from ristretto_cli.train.curves import read_curves
from ristretto_cli.train.snapshot import read_state

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("RISTRETTO_SHARED", ROOT.parent / "shared"))
MAX_SEED_BYTES = 20_000

# Nets are run only where that takes no time; building them is tried at any size.
MAX_WEIGHTS, MAX_VALUES = 20_000, 100_000


@dataclass(frozen=True)
class Target:
    """seeds: files to begin with. run: reads one, in the current folder. text: whether it is made of words."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    text: bool = False


TARGETS: dict[str, Target] = {}


def target(seeds: Callable[[], list[bytes]], *, text: bool = False) -> Any:
    """Decorator: file a target under its function's name."""

    def file_target(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[run.__name__] = Target(run, seeds, text)
        return run

    return file_target


def recorded(*patterns: str) -> list[bytes]:
    """The small files of the recorded cases and of models/ whose paths match."""
    found = [path for pattern in patterns for top in (SHARED / "golden", ROOT / "models") for path in top.glob(pattern)]
    return [path.read_bytes() for path in sorted(found) if path.stat().st_size < MAX_SEED_BYTES]


# --- text

NET = b"""name: "n" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "r" type: "ReLU" bottom: "p" top: "p" }
layer { name: "f" type: "InnerProduct" bottom: "p" top: "f" inner_product_param { num_output: 3 } }
layer { name: "s" type: "Softmax" bottom: "f" top: "s" }"""


# Layers that no recorded case has.
FORKS = (
    b"""layer { name: "m" type: "Input" top: "m" input_param { shape { dim: 1 dim: 4 dim: 2 dim: 2 } } }
layer { name: "l" type: "Permute" bottom: "m" top: "l" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "o" type: "Flatten" bottom: "l" top: "o" }
layer { name: "c" type: "Pooling" bottom: "m" top: "c" pooling_param { pool: AVE kernel_size: 1 } }
layer { name: "n" type: "Normalize" bottom: "c" top: "n" norm_param { across_spatial: false } }
layer { name: "s" type: "Slice" bottom: "o" top: "s0" top: "s1" slice_param { axis: 1 slice_point: 8 } }
layer { name: "p" type: "PriorBox" bottom: "m" bottom: "n" top: "p" prior_box_param { min_size: 1 } }
layer { name: "d" type: "DetectionOutput" bottom: "o" bottom: "s0" bottom: "p" top: "d"
        detection_output_param { num_classes: 2 keep_top_k: 3 nms_param { nms_threshold: 0.5 top_k: 2 } } }""",
    b"""layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }
layer { name: "r" type: "Input" top: "r" input_param { shape { dim: 3 dim: 5 } } }
layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "k" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "u" type: "Upsample" bottom: "p" bottom: "k" top: "u" upsample_param { scale: 2 } }
layer { name: "i" type: "Interp" bottom: "u" top: "i" interp_param { height: 5 width: 7 } }
layer { name: "s" type: "ShuffleChannel" bottom: "i" top: "s" shuffle_channel_param { group: 2 } }
layer { name: "b" type: "BN" bottom: "s" top: "b" }
layer { name: "o" type: "ROIPooling" bottom: "b" bottom: "r" top: "o"
        roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 } }""",
    b"""layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 dim: 4 } } }
layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "r" type: "RNN" bottom: "x" bottom: "c" top: "r" recurrent_param { num_output: 3 } }
layer { name: "l" type: "LSTM" bottom: "r" bottom: "c" top: "l" recurrent_param { num_output: 2 } }
layer { name: "e" type: "Embed" bottom: "c" top: "e" embed_param { num_output: 2 input_dim: 5 } }""",
)


def _nets() -> list[bytes]:
    return [NET, *FORKS, *recorded("*/*/*.prototxt", "*/*.prototxt")]


def _layers() -> list[bytes]:
    return [NET, *FORKS, *recorded("layers/*/net.prototxt", "ristretto/*/net.prototxt")]


@target(_nets, text=True)
def prototxt(data: bytes) -> None:
    """Text that is accepted is printed as text that means the same."""
    message = parse(data.decode("utf-8", "surrogateescape"), "NetParameter", "file").message
    upgraded = upgrade(message).message
    for one in (message, upgraded):
        _same(one, parse(to_text(one), "NetParameter", "printed").message)
    _same(upgraded, upgrade(upgraded).message)


SETTINGS = b"""# widths
conv_params: 8
res2a/branch1.layer_out: 16  # wide
skip: ip1, ip2
skip: "a name, with a comma"
"""


@target(lambda: [SETTINGS], text=True)
def settings(data: bytes) -> None:
    Path("settings.txt").write_bytes(data)
    read_settings("settings.txt")


@target(
    lambda: [b'net: "n" base_lr: 0.1', *recorded("io/*solver*/*.prototxt", "training/*/solver.prototxt")], text=True
)
def solver(data: bytes) -> None:
    Path("solver").write_bytes(data)
    message = read_solver("solver").message
    _same(message, parse(to_text(message), "SolverParameter", "printed").message)


def _same(one: Message, other: Message) -> None:
    if one.SerializeToString(deterministic=True) != other.SerializeToString(deterministic=True):
        raise AssertionError(f"not the same:\n{to_text(one)}\n---\n{to_text(other)}")


@target(_layers, text=True)
def net(data: bytes) -> None:
    """Nets are built, and small ones become graphs."""
    Path("net").write_bytes(data)
    file = read_net("net")
    for phase in (TRAIN, TEST):
        built = build(file, NetState(phase), DataLayers())
        if _is_small(built):
            rng = np.random.default_rng(0)
            record(fill_weights(built, rng=rng), rng=rng)


@target(_layers, text=True)
def one_pass(data: bytes) -> None:
    """Small nets are run."""
    Path("net").write_bytes(data)
    built = build(read_net("net"), NetState(TEST), DataLayers())
    if _is_small(built):
        rng = np.random.default_rng(0)
        feeds = {blob.name: rng.random(blob.shape, np.float32) for blob in built.inputs}
        OnePass(fill_weights(built, rng=rng), rng=rng).run(feeds)


def _is_small(built: Net) -> bool:
    weights = sum(prod(param.shape) for layer in built.layers for param in layer.params)
    values = sum(prod(top.shape) for layer in built.layers for top in layer.tops)
    return weights <= MAX_WEIGHTS and values <= MAX_VALUES


@target(
    lambda: [
        b"Iteration 0 (0 iter/s, 1s/1 iters), loss = 1.5\n    Train net output #0: loss = 1.5 (* 1 = 1.5 loss)\n",
        b"Iteration 5, Testing net (#0)\n    Test net output #0: accuracy = 0.5\nIteration 5, lr = 1e-05\n",
        *recorded("training/*/log.txt"),
    ],
    text=True,
)
def training_log(data: bytes) -> None:
    Path("log").write_bytes(data)
    for curve in read_curves("log").test.values():
        curve.smoothed(2)


# --- binary files


WEIGHTS = {"c": [np.ones((2, 2, 3, 3)), np.ones(2)], "f": [np.ones((3, 18)), np.ones(3)]}  # of NET


def _caffemodels() -> list[bytes]:
    write_weights("seed.caffemodel", WEIGHTS)
    return [Path("seed.caffemodel").read_bytes(), *recorded("*/*/*.caffemodel", "*/*/input.binaryproto")]


@target(_caffemodels)
def caffemodel(data: bytes) -> None:
    Path("weights").write_bytes(data)
    _load("weights")
    upgrade(read_net_binary("weights"))


def _load(name: str) -> None:
    Path("net").write_bytes(NET)
    built = build(read_net("net"), NetState(TEST), DataLayers())
    load_weights(built, read_weights(name), rng=np.random.default_rng(0), allow_missing=True)


def _hdf5_weights() -> list[bytes]:
    write_weights("seed.h5", WEIGHTS)
    return [Path("seed.h5").read_bytes(), *recorded("*/*/*.h5")]


@target(_hdf5_weights)
def hdf5(data: bytes) -> None:
    Path("weights").write_bytes(data)
    _load("weights")


def _solver_states() -> list[bytes]:
    for name in ("seed.solverstate", "seed.solverstate.h5"):
        write_solver_state(name, 3, 1, "weights", [np.ones((2, 3), np.float32), np.ones(2, np.float32)])
    made = [Path(name).read_bytes() for name in ("seed.solverstate", "seed.solverstate.h5")]
    return [*made, *recorded("training/*/*.solverstate", "training/*/expected/*.solverstate*")]


@target(_solver_states)
def solver_state(data: bytes) -> None:
    Path("weights").touch()
    Path("state").write_bytes(data)
    read_state("state", [("fc/0", (2, 3)), ("fc/1", (2,))])


def _hdf5_rows() -> list[bytes]:
    with h5py.File("seed.h5", "w") as file:
        file["data"], file["label"] = np.ones((3, 2), np.float32), np.arange(3)
    with h5py.File("packed.h5", "w") as file:
        file.create_dataset("data", data=np.ones((3, 2)), chunks=(1, 2), compression="gzip")
        file["label"] = np.arange(3)
    return [Path("seed.h5").read_bytes(), Path("packed.h5").read_bytes(), *recorded("io/hdf5*/*.h5")]


@target(_hdf5_rows)
def hdf5_data(data: bytes) -> None:
    Path("rows.h5").write_bytes(data)
    Path("list").write_text("rows.h5")
    _read('type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list" batch_size: 2 }')


@target(lambda: [new("BlobProto", num=1, data=[1]).SerializeToString(), *recorded("io/*/*.binaryproto")])
def blob(data: bytes) -> None:
    Path("mean").write_bytes(data)
    read_blob("mean")


def _npz() -> list[bytes]:
    np.savez("seed.npz", x=np.ones((2, 3), np.float32), y=np.arange(3))
    np.savez_compressed("packed.npz", x=np.ones((2, 3), np.float64))
    return [Path("seed.npz").read_bytes(), Path("packed.npz").read_bytes(), *recorded("layers/*/inputs.npz")[:20]]


@target(_npz)
def npz(data: bytes) -> None:
    Path("arrays.npz").write_bytes(data)
    read_npz("arrays.npz")


def _pictures() -> list[bytes]:
    image = np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)  # jp2 takes none much smaller
    kinds = (".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm", ".jp2", ".hdr")
    made = [cv2.imencode(kind, image) for kind in kinds if cv2.haveImageWriter(kind)]
    deep = cv2.imencode(".png", image.astype(np.uint16))
    pictures = [picture.tobytes() for written, picture in (*made, deep) if written]
    return [*pictures, *recorded("io/*/images/*", "io/*/*.png")]


@target(_pictures)
def image(data: bytes) -> None:
    for flag in (NATIVE, GRAY, COLOR):
        resize(decode(data, flag, "file"), 3, 7)


def _datums() -> list[bytes]:
    picture = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    raw = new("Datum", channels=1, height=2, width=2, data=b"1234", label=3)
    floats = new("Datum", channels=1, height=2, width=2, float_data=[1, 2, 3, 4])
    encoded = new("Datum", encoded=True, data=picture)
    return [message.SerializeToString() for message in (raw, floats, encoded)]


class _OneRecord:
    """A database with one value for all keys."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        return iter([(b"0", self._value), (b"1", self._value)])

    def close(self) -> None: ...


@target(_datums)
def datum(data: bytes) -> None:
    settings = ("batch_size: 1", "batch_size: 3")[zlib.crc32(data) % 2]
    _read_record(data, f'type: "Data" top: "data" top: "label" data_param {{ source: "." {settings} }}')


def _annotated_datums() -> list[bytes]:
    groups = [{"group_label": 3, "annotation": [{"bbox": {"xmin": 0, "ymin": 0.25, "xmax": 0.5, "ymax": 1}}]}]
    datums = [new("Datum").FromString(data) for data in _datums()]
    made = [new("AnnotatedDatum", datum=datum, type=0, annotation_group=groups) for datum in datums]
    return [message.SerializeToString() for message in made]


@target(_annotated_datums)
def annotated_datum(data: bytes) -> None:
    fit = ("WARP", "FIT_SMALL_SIZE", "FIT_LARGE_SIZE_AND_PAD")[zlib.crc32(data) % 3]
    transform = f"resize_param {{ height: 2 width: 2 resize_mode: {fit} }} emit_constraint {{ }} mirror: true"
    settings = f'data_param {{ source: "." batch_size: 1 }} transform_param {{ {transform} }}'
    _read_record(data, f'type: "AnnotatedData" top: "data" top: "label" {settings}')


def _read_record(data: bytes, layer: str) -> None:
    original = image_records._open
    image_records._open = lambda path, backend: _OneRecord(data)
    try:
        _read(layer)
    finally:
        image_records._open = original


def _lmdb() -> list[bytes]:
    seeds = []
    for count, size in ((3, 20), (60, 100), (2, 9000)):
        with TemporaryDirectory() as folder, lmdb.open(folder, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                for i in range(count):
                    record = new("Datum", channels=1, height=1, width=size, data=bytes(size), label=i)
                    transaction.put(b"%04d" % i, record.SerializeToString())
            seeds.append(Path(folder, "data.mdb").read_bytes())
    return seeds


@target(_lmdb)
def lmdb_file(data: bytes) -> None:
    Path("lmdb").mkdir(exist_ok=True)
    Path("lmdb/data.mdb").write_bytes(data)
    _read('type: "Data" top: "data" top: "label" data_param { source: "lmdb" backend: LMDB batch_size: 2 }')


def _leveldb() -> list[bytes]:
    return recorded("io/leveldb*/db/*.log") if find_spec("plyvel") else []


@target(_leveldb)
def leveldb(data: bytes) -> None:
    """The log of a LevelDB, which holds the records until there are many."""
    seed = SHARED / "golden" / "io" / "leveldb_color" / "db"
    if not Path("level").exists():
        Path("level").mkdir()
        for file in seed.iterdir():  # not copytree: the copy is written, and the recorded files may be read-only
            shutil.copyfile(file, Path("level") / file.name)
    for log in Path("level").glob("*.log"):
        log.write_bytes(data)
    _read('type: "Data" top: "data" top: "label" data_param { source: "level" backend: LEVELDB batch_size: 2 }')


# --- lists of files


def _some_files() -> None:
    if not Path("a.png").exists():
        picture = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
        for name in ("a.png", "b.png"):
            Path(name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        _hdf5_rows()


@target(lambda: [b"a.png 0\nb.png 1\n", *recorded("io/imagedata*/list.txt")], text=True)
def image_list(data: bytes) -> None:
    _some_files()
    Path("list").write_bytes(data)
    _read('type: "ImageData" top: "data" top: "label" image_data_param { source: "list" batch_size: 2 shuffle: true }')


WINDOWS = b"# 0\na.png 3 5 4\n2\n3 0.8 1 1 2 2\n7 0.1 0 0 3 3\n# 1\nb.png 3 5 4\n1\n1 0.9 0 1 3 4\n"


@target(lambda: [WINDOWS, *(seed.replace(b"im.png", b"a.png") for seed in recorded("io/window*/*.txt"))], text=True)
def window_list(data: bytes) -> None:
    _some_files()
    Path("list").write_bytes(data)
    for settings in ("", "context_pad: 2", 'crop_mode: "square"'):
        _read(
            'type: "WindowData" top: "data" top: "label" transform_param { crop_size: 7 mirror: true }'
            f'window_data_param {{ source: "list" batch_size: 3 {settings} }}'
        )


@target(lambda: [b"seed.h5\npacked.h5\n"], text=True)
def hdf5_list(data: bytes) -> None:
    _some_files()
    Path("list").write_bytes(data)
    _read('type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list" batch_size: 4 }')


def _read(layer: str) -> None:
    """Two batches of a data layer."""
    source = open_source(parse(layer, "LayerParameter", "layer").message, TEST, seed=1)
    try:
        for _ in range(2):
            source.next()
    finally:
        source.close()
