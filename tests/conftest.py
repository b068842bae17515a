"""A workshop for small nets: their prototxt, weights and databases, written where a test runs."""

from __future__ import annotations

import locale
import logging
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from ristretto_cli.backends.exact_kernels import exact_kernels
from ristretto_cli.backends.onnx_integers import ALL_KERNELS
from ristretto_cli.caffe_io.messages import TEST, new
from ristretto_cli.caffe_io.weights import write_weights
from ristretto_cli.net.build import NetState
from ristretto_cli.net.ir import Net
from ristretto_cli.quantize.config import QuantizeConfig
from ristretto_cli.scoring.net_files import load_net

FULL = os.environ.get("RISTRETTO_FULL", "0") not in ("", "0")  # whether tests that take long are run

# --- the same for every test, whoever runs them and in whatever order

# What people set for their terminals, and what Caffe, the command line and Python read: tests begin without.
_SETTINGS = re.compile(
    r"COLUMNS|LINES|NO_COLOR|FORCE_COLOR|TTY_.*|GLOG_.*|_?RISTRETTO_(TRACEBACK|COMPLETE)"
    r"|PYTHON(UNBUFFERED|WARNINGS|DEVMODE|VERBOSE|PROFILEIMPORTTIME|IOENCODING)"
)
_OTHERS = re.compile("RISTRETTO_.*|PATH|PYTHONPATH|HOME|TMPDIR|TZ|LANG|LC_.*")


@pytest.fixture(autouse=True)
def plain_environment(nothing_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the user's reaches a test, or a process that it starts."""
    for name in [name for name in os.environ if _SETTINGS.fullmatch(name)]:
        monkeypatch.delenv(name)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """SIGINT and SIGHUP end the processes that a test starts: shells ignore them in background jobs and under nohup."""
    found = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in found.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """The log and torch's threads, which commands set for their process, are reset; all else a test has to restore."""
    logger = logging.getLogger("ristretto")
    level, handlers, torch = logger.level, logger.handlers[:], sys.modules.get("torch")
    root_level = logging.getLogger().level
    threads = torch.get_num_threads() if torch else 0
    before = _state()
    yield
    logger.setLevel(level)
    logging.getLogger().setLevel(root_level)
    logger.handlers[:] = handlers
    if torch and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    assert _state() == before


def _state() -> dict[str, object]:
    """What of a process outlives a test."""
    # Not all of the environment: libraries set variables of their own when they are imported.
    names = [name for name in os.environ if _SETTINGS.fullmatch(name) or _OTHERS.fullmatch(name)]
    return {
        "environment": {name: os.environ[name] for name in names},
        "current folder": Path.cwd(),
        "signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)],
        "locale": locale.setlocale(locale.LC_ALL),
        "folder for temporary files": tempfile.gettempdir(),
        "numpy's errors": np.geterr(),
        "level of the root logger": logging.getLogger().level,
    }


# --- files


def copy_writable(source: Path, target: Path, **settings: Any) -> Path:
    """shutil.copytree into a folder that may exist; the copies may be written, also where the originals may not."""
    shutil.copytree(source, target, dirs_exist_ok=True, **settings)
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    return target


class Workshop:
    """Writes files into a folder, which is the current one, and gives back their names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def net(self, text: str, name: str = "net.prototxt") -> str:
        """A prototxt."""
        (self.folder / name).write_text(textwrap.dedent(text))
        return name

    def weights(self, layers: Mapping[str, Sequence[Any]], name: str = "net.caffemodel") -> str:
        """A file of weights, each layer's arrays by its name."""
        arrays = {layer: [np.asarray(a, np.float32) for a in blobs] for layer, blobs in layers.items()}
        write_weights(self.folder / name, arrays)
        return name

    def database(self, name: str, images: Any, labels: Sequence[int] | None = None) -> str:
        """An LMDB of images (N, C, H, W), raw bytes where they are uint8, and their labels, 0 by default."""
        images = np.asarray(images)
        (self.folder / name).mkdir(exist_ok=True)
        with lmdb.open(str(self.folder / name), map_size=1 << 22) as env, env.begin(write=True) as view:
            for i, image in enumerate(images):
                channels, height, width = image.shape
                label = labels[i] if labels is not None else 0
                datum = new("Datum", channels=channels, height=height, width=width, label=label)
                if image.dtype == np.uint8:
                    datum.data = image.tobytes()
                else:
                    datum.float_data.extend(image.ravel().tolist())
                view.put(b"%08d" % i, datum.SerializeToString())
        return name

    def annotated(self, name: str, images: Any, boxes: Sequence[Sequence[tuple[int, Sequence[float]]]]) -> str:
        """An LMDB of SSD's records: images (N, C, H, W) of bytes, and for each its boxes, a class and four corners."""
        (self.folder / name).mkdir(exist_ok=True)
        with lmdb.open(str(self.folder / name), map_size=1 << 22) as env, env.begin(write=True) as view:
            for i, (image, around) in enumerate(zip(np.asarray(images, np.uint8), boxes, strict=True)):
                channels, height, width = image.shape
                record = new("AnnotatedDatum", type=0)
                record.datum.CopyFrom(new("Datum", channels=channels, height=height, width=width, data=image.tobytes()))
                for label, (xmin, ymin, xmax, ymax) in around:
                    group = record.annotation_group.add(group_label=label)
                    group.annotation.add().bbox.CopyFrom(
                        new("NormalizedBBox", xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
                    )
                view.put(b"%08d" % i, record.SerializeToString())
        return name

    def load(self, text: str, weights: Mapping[str, Sequence[Any]] | None = None, phase: int = TEST) -> Net:
        """The net of a text, with weights or its fillers', for a phase."""
        rng = np.random.default_rng(0)
        file = self.weights(weights) if weights is not None else None
        return load_net(self.net(text), file, NetState(phase), rng=rng)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.chdir(tmp_path)
    return Workshop(tmp_path)


# --- a whole net


NET = """
    name: "two classes"
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
            transform_param { scale: 0.00390625 }
            data_param { source: "train_db" backend: LMDB batch_size: 5 } }
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
            transform_param { scale: 0.00390625 }
            data_param { source: "test_db" backend: LMDB batch_size: 5 } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
    layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
            inner_product_param { num_output: 2 bias_term: false } }
    layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
IDENTITY = {"conv": [[[[[1]], [[0]]], [[[0]], [[1]]]]], "fc": [[[1, 0], [0, 1]]]}


def images(high: int = 200, low: int = 50) -> Any:
    """Ten images, of the classes 0 and 1 in turn."""
    pairs = [(high, low), (low, high)] * 5
    return np.array(pairs, np.uint8).reshape(10, 2, 1, 1)


LABELS = [0, 1, 0, 1, 1, 1, 0, 1, 0, 0]  # the fifth and the tenth are wrong


@dataclass(frozen=True)
class TwoClasses:
    """The files of a net of two classes that can be followed by hand, in the current folder.

    An image is two pixels, and the larger one is its class. Both layers have the identity as their weights. Of
    the ten images two are labelled wrongly, so that the float net scores 0.8. Trimmed:
    - weights of 2 bits are 0.5 instead of 1, which changes no class; of 1 bit they are 0, which leaves a tie;
    - pixels of 200 / 256 and 50 / 256 become 7/16 and 3/16 with 4 bits, and both 1/4 with 2 bits.
    """

    workshop: Workshop

    def job(self, mode: str = "dynamic_fixed_point", *, text: str = NET, **settings: Any) -> QuantizeConfig:
        """A job for the net, or another one with the same layers."""
        return QuantizeConfig(
            model=self.workshop.net(text),
            weights="net.caffemodel",
            model_quantized="quantized.prototxt",
            trimming_mode=mode,
            **{"iterations": 2, "calibration_iterations": 2, **settings},
        )


@pytest.fixture
def two_classes(workshop: Workshop) -> Callable[..., TwoClasses]:
    """Writes the net's files; train: the high pixel of the training images."""

    def make(high: int = 200, low: int = 50, *, train: int | None = None, weights: Any = None) -> TwoClasses:
        workshop.net(NET)
        workshop.weights(weights if weights is not None else IDENTITY)
        workshop.database("test_db", images(high, low), LABELS)
        workshop.database("train_db", images(high if train is None else train, low), LABELS)
        return TwoClasses(workshop)

    return make


# --- a detector


DETECTOR = """
    name: "bright halves"
    layer { name: "d" type: "AnnotatedData" top: "data" top: "label" include { phase: TRAIN }
            transform_param { scale: 0.00390625 }
            data_param { source: "train_db" backend: LMDB batch_size: 2 } }
    layer { name: "d" type: "AnnotatedData" top: "data" top: "label" include { phase: TEST }
            transform_param { scale: 0.00390625 }
            data_param { source: "test_db" backend: LMDB batch_size: 2 } }
    layer { name: "conf" type: "Convolution" bottom: "data" top: "conf"
            convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
    layer { name: "loc" type: "Convolution" bottom: "data" top: "loc"
            convolution_param { num_output: 4 kernel_size: 1 } }
    layer { name: "conf_p" type: "Permute" bottom: "conf" top: "conf_p" permute_param { order: [0, 2, 3, 1] } }
    layer { name: "conf_f" type: "Flatten" bottom: "conf_p" top: "conf_f" }
    layer { name: "loc_p" type: "Permute" bottom: "loc" top: "loc_p" permute_param { order: [0, 2, 3, 1] } }
    layer { name: "loc_f" type: "Flatten" bottom: "loc_p" top: "loc_f" }
    layer { name: "prior" type: "PriorBox" bottom: "conf" bottom: "data" top: "prior"
            prior_box_param { min_size: 1 } }
    layer { name: "out" type: "DetectionOutput" bottom: "loc_f" bottom: "conf_f" bottom: "prior" top: "found"
            include { phase: TEST }
            detection_output_param { num_classes: 2 keep_top_k: 3 confidence_threshold: 0.1
                                     nms_param { nms_threshold: 0.45 top_k: 10 } } }
    layer { name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "detection_eval"
            include { phase: TEST }
            detection_evaluate_param { num_classes: 2 overlap_threshold: 0.5 } }
"""
FINDS_BRIGHT = {"conf": [[[[[0]]], [[[1]]]]], "loc": [[[[[0]]]] * 4, [0] * 4]}


@pytest.fixture
def bright_halves(workshop: Workshop) -> Workshop:
    """The files of a net that finds the bright ones of an image's two pixels, with bright's share as the score.

    Of three objects in four images it finds two, with 200/256, and where there is none two more, with 100/256 and
    50/256: the average precision is 2/3 by SSD's default.
    """
    left, right = (1, (0, 0, 0.5, 1)), (1, (0.5, 0, 1, 1))
    pixels = np.array([(200, 0), (100, 200), (0, 0), (50, 0)]).reshape(4, 1, 1, 2)
    for name in ("test_db", "train_db"):
        workshop.annotated(name, pixels, [[left], [right], [left], []])
    workshop.net(DETECTOR)
    workshop.weights(FINDS_BRIGHT)
    return workshop


@pytest.fixture(scope="session")
def tried_kernels() -> None:
    """Each integer kernel has been tried: no later test meets a session that is made for that."""
    kernels = exact_kernels()
    assert [kernels.allows(kernel) for kernel in ALL_KERNELS]
    kernels.rescales()
