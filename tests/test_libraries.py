"""Libraries that are imported at their first use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.sources import images, resize_param

LIBRARIES = ("cv2", "h5py", "lmdb")
_FREE = """
layer {{ name: "data" type: "{source}" top: "data" top: "label" include {{ phase: TEST }} {settings} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
_SETTINGS = {
    "DummyData": 'dummy_data_param { shape { dim: 2 dim: 4 } shape { dim: 2 } data_filler { type: "gaussian" } }',
    "Data": 'data_param { source: "db" backend: LMDB batch_size: 2 }',
    "HDF5Data": 'hdf5_data_param { source: "list.txt" batch_size: 2 }',
    "ImageData": 'image_data_param { source: "list.txt" batch_size: 2 }',
}
_RUN = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from ristretto_cli.cli.main import run
code = run({args!r})
loaded = sorted(name for name in ("cv2", "h5py", "lmdb") if sys.modules.get(name) is not None)
print(loaded, file=sys.stderr)
sys.exit(code)
"""


def ristretto(folder: Path, *args: str, without: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that lacks some modules; the last line on stderr names the libraries it loaded."""
    code = _RUN.format(blocked=list(without), args=list(args))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


def write_net(folder: Path, source: str) -> None:
    """net.prototxt and, from its fillers, net.caffemodel."""
    (folder / "net.prototxt").write_text(_FREE.format(source=source, settings=_SETTINGS[source]), encoding="utf-8")
    rng = np.random.default_rng(1)
    net = new("NetParameter")
    layer = net.layer.add(name="ip", type="InnerProduct")
    for array in (rng.normal(size=(3, 4)), np.zeros(3)):
        blob = layer.blobs.add(data=array.astype(np.float32).ravel().tolist())
        blob.shape.dim.extend(array.shape)
    (folder / "net.caffemodel").write_bytes(net.SerializeToString())


def write_data(folder: Path, source: str) -> None:
    if source == "Data":
        with lmdb.open(str(folder / "db")) as environment, environment.begin(write=True) as transaction:
            for number in range(2):
                datum = new("Datum", channels=1, height=2, width=2, data=bytes(range(4)), label=number)
                transaction.put(b"%08d" % number, datum.SerializeToString())
    elif source == "HDF5Data":
        with h5py.File(folder / "x.h5", "w") as file:
            file["data"], file["label"] = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
        (folder / "list.txt").write_text("x.h5\n", encoding="utf-8")
    elif source == "ImageData":
        cv2.imwrite(str(folder / "x.png"), np.zeros((2, 2, 3), np.uint8))
        (folder / "list.txt").write_text("x.png 0\nx.png 1\n", encoding="utf-8")


def test_a_net_without_images_hdf5_and_lmdb_is_quantized_scored_and_exported_without_the_libraries(
    tmp_path: Path,
) -> None:
    write_net(tmp_path, "DummyData")
    net = ["--model", "net.prototxt", "--weights", "net.caffemodel"]
    quantized = ["--model", "quantized.prototxt", "--weights", "net.caffemodel"]
    mode = ["--trimming_mode", "dynamic_fixed_point", "--bw", "fc_params=8,layer=8", "--noscore"]
    for args in (
        ["quantize", *net, *mode, "--calibration_iterations", "1"],
        ["test", *quantized, "--iterations", "1"],
        ["summary", "--model", "quantized.prototxt"],
        ["export", *quantized, "--format", "npz", "--output", "out"],
    ):
        done = ristretto(tmp_path, *args, without=LIBRARIES)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("source", "library", "line"),
    [
        ("HDF5Data", "h5py", "HDF5 files need h5py, which is not installed. Install it: pip install h5py"),
        (
            "ImageData",
            "cv2",
            "images need opencv-python-headless, which is not installed. "
            "Install it: pip install opencv-python-headless",
        ),
    ],
)
def test_a_missing_library_is_named_with_the_remedy(tmp_path: Path, source: str, library: str, line: str) -> None:
    write_net(tmp_path, source)
    write_data(tmp_path, source)
    args = ["test", "--model", "net.prototxt", "--weights", "net.caffemodel", "--iterations", "1"]
    done = ristretto(tmp_path, *args, without=[library])
    errors = [each for each in done.stderr.splitlines() if each.startswith("ristretto:")]
    assert (done.returncode, len(errors)) == (1, 1), done.stderr
    assert errors[0].endswith(line)
    if source != "ImageData":
        # Its net is not valid for colour images: only the library was of interest.
        done = ristretto(tmp_path, *args, without=[each for each in LIBRARIES if each != library])
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, f"['{library}']")


def test_a_library_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    write_net(tmp_path, "HDF5Data")
    write_data(tmp_path, "HDF5Data")
    (tmp_path / "h5py.py").write_text("raise ImportError('libhdf5.so is missing')\n", encoding="utf-8")
    done = ristretto(tmp_path, "test", "--model", "net.prototxt", "--weights", "net.caffemodel")
    assert done.returncode == 1
    assert "HDF5 files need h5py, which cannot be loaded: libhdf5.so is missing. Reinstall it: pip install h5py" in (
        done.stderr
    )


def test_constants_are_those_of_opencv() -> None:
    assert (images.NATIVE, images.GRAY, images.COLOR) == (
        cv2.IMREAD_UNCHANGED,
        cv2.IMREAD_GRAYSCALE,
        cv2.IMREAD_COLOR,
    )
    for name in ("LINEAR", "AREA", "NEAREST", "CUBIC", "LANCZOS4"):
        param = new("ResizeParameter", height=2, width=2, interp_mode=[name])
        assert resize_param.Resize.of(param).interpolations == (getattr(cv2, f"INTER_{name}"),)
    borders = {"CONSTANT": "CONSTANT", "MIRRORED": "REFLECT_101", "REPEAT_NEAREST": "REPLICATE"}
    for mode, name in borders.items():
        param = new("ResizeParameter", height=2, width=2, pad_mode=mode)
        assert resize_param.Resize.of(param).border == getattr(cv2, f"BORDER_{name}")
