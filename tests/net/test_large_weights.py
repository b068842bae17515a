"""Large weights: trimmed part by part, let go of when they are read, and not copied more often than needed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from ristretto_cli.caffe_io.weights import read_weights, release_pages, releasing_pages, write_weights
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import NumberFormat, Rounding
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.net import param_formats
from ristretto_cli.net.param_formats import ParamFormat, ParamQuantizer

# Of weights that it is handed, onnxruntime 1.20 made one copy more.
COPIES_ONCE = tuple(map(int, onnxruntime.__version__.split(".")[:2])) > (1, 20)

FORMATS = [Fixed(8, 7), Fixed(16, 12), Minifloat(5, 5), PowerOfTwo(-8, -1)]


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
@pytest.mark.parametrize("rounding", Rounding, ids=lambda rounding: rounding.name)
def test_an_array_trimmed_in_parts_is_the_array_trimmed_at_once(
    number_format: NumberFormat, rounding: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).standard_normal((5, 7, 11), np.float32)  # 385 elements: six parts and one more
    array[0, 0, :4] = [np.inf, -np.inf, np.nan, -0.0]
    param_format = ParamFormat(number_format, rounding)
    whole = ParamQuantizer(np.random.default_rng(1)).quantize("fc/0", array, param_format)
    monkeypatch.setattr(param_formats, "_CHUNK", 64)
    parts = ParamQuantizer(np.random.default_rng(1)).quantize("fc/0", array, param_format)
    np.testing.assert_array_equal(parts.view(np.int32), whole.view(np.int32))


def test_weights_are_the_same_after_their_pages_are_released(tmp_path: Path) -> None:
    values = np.arange(100_000, dtype=np.float32)
    write_weights(tmp_path / "x.caffemodel", {"fc": [values]})
    (blob,) = read_weights(tmp_path / "x.caffemodel").layers["fc"]
    release_pages(blob.array)
    np.testing.assert_array_equal(blob.array, values)
    release_pages(blob.array.reshape(100, 1000)[3:])
    np.testing.assert_array_equal(blob.array, values)


def test_weights_are_the_same_while_others_release_them(tmp_path: Path) -> None:
    numbers = np.arange(1_000_000, dtype=np.float32)
    write_weights(tmp_path / "w.caffemodel", {"a": [numbers], "b": [numbers]})
    first, second = (blobs[0].array for blobs in read_weights(tmp_path / "w.caffemodel").layers.values())
    with releasing_pages([first, second, np.zeros(3, np.float32)]):
        assert any(thread.name == "release pages" for thread in threading.enumerate())
        for _ in range(30):
            assert first.sum(dtype=np.float64) == second.sum(dtype=np.float64) == numbers.sum(dtype=np.float64)
    assert not any(thread.name == "release pages" for thread in threading.enumerate())


def test_nobody_lets_go_of_arrays_of_no_file() -> None:
    with releasing_pages([np.arange(3)]):
        assert not any(thread.name == "release pages" for thread in threading.enumerate())


def test_arrays_of_no_file_cannot_be_let_go() -> None:
    array = np.ones(3, np.float32)
    release_pages(array)
    assert array.tolist() == [1, 1, 1]


# Two inner products of 40 MB each, and a file that holds both.
WIDTH = 3200
LAYER = """
    layer { name: "fc%d" type: "%s" bottom: "x%d" top: "x%d" inner_product_param { num_output: 3200 bias_term: false }
            quantization_param { bw_layer_in: %d fl_layer_in: 4 bw_layer_out: %d fl_layer_out: 4
                                 bw_params: %d fl_params: 6 } }
"""
LOAD = """
import numpy as np
from benchmarks.child import peak_bytes
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.net_files import load_net
import onnxruntime
def load(name):
    rng = np.random.default_rng(0)
    net = load_net(name + ".prototxt", name + ".caffemodel", NetState(1), rng=rng)
    return compile_net(net, lambda run, ops: {"x2": run.final["x2"]}, rng=rng)
small = load("small")
before = peak_bytes()
large = load("large")
print(peak_bytes() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak memory of a process is known only on Linux"
)
@pytest.mark.parametrize(
    ("type_", "bits", "most"),
    [
        ("InnerProduct", 32, 2.25 if COPIES_ONCE else 2.75),
        ("FcRistretto", 8, 2.25 if COPIES_ONCE else 2.75),
        ("FcRistretto", 16, 2.75),
    ],
)
def test_loading_takes_less_than_three_times_the_memory_of_the_file(
    type_: str, bits: int, most: float, workshop: Any
) -> None:
    for name, width in (("small", 8), ("large", WIDTH)):
        layers = "".join(LAYER % (i, type_, i - 1, i, bits, bits, bits) for i in (1, 2)).replace("3200", str(width))
        given = f'layer {{ name: "i" type: "Input" top: "x0" input_param {{ shape {{ dim: 1 dim: {width} }} }} }}'
        workshop.net(given + layers, f"{name}.prototxt")
        weight = np.random.default_rng(0).uniform(-1, 1, (width, width)).astype(np.float32)
        workshop.weights({"fc1": [weight], "fc2": [weight]}, f"{name}.caffemodel")
    root = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {root!r})\n{LOAD}"
    limit = most * (workshop.folder / "large.caffemodel").stat().st_size
    # The thread that releases pages may be scheduled late, which no program can prevent: one of a few runs is enough.
    peaks = []
    while len(peaks) < 5 and (not peaks or min(peaks) >= limit):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert min(peaks) < limit
