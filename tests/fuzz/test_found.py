"""What fuzzing found: each damaged file is refused in a line, at once, and within little memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.sources.images import COLOR, decode
from ristretto_cli.sources.open import open_source


def test_a_png_whose_chunk_is_longer_than_the_file_is_refused_without_room_for_it() -> None:
    png = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    assert decode(png, COLOR, "a.png").shape == (2, 2, 3)
    image, end = png.index(b"IDAT") - 4, png.index(b"IEND") - 4
    for at, size in ((image, 0x7FFFFFFF), (image, len(png) - image - 11), (end, 0x9B000000), (end, 1)):
        with pytest.raises(RistrettoError, match=r"^a.png: the image cannot be decoded$"):
            decode(png[:at] + struct.pack(">I", size) + png[at + 4 :], COLOR, "a.png")


def test_what_follows_the_end_of_a_png_does_not_count() -> None:
    png = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    assert decode(png + b"\xff" * 20, COLOR, "a.png").shape == (2, 2, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of one process is known on Linux only")
def test_a_small_png_of_billions_of_pixels_is_refused() -> None:
    # OpenCV takes its limit from the environment when it is loaded: so, in a process of its own.
    code = """
import struct, zlib
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.sources.images import COLOR, decode
def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
size = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
rows = zlib.compress(bytes(100 * 30001), 9)
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
try:
    decode(png, COLOR, "a.png")
except Exception as error:
    print(type(error).__name__, error)
# The kernel's own peak of this process; getrusage's begins with that of the process that started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024 < 500)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "RistrettoError a.png: the image cannot be decoded\nTrue\n"


def npz() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        array = io.BytesIO()
        np.save(array, np.ones(2, np.float32))
        archive.writestr("x.npy", array.getvalue())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("what", "offset", "value"),
    [
        ("a version of zip that is not known", 6, b"\xff"),
        ("an encrypted member", 8, b"\x01"),
        ("a packer that is not known", 10, b"\x63"),
        ("packed by lzma, which it is not", 10, b"\x0e"),
        ("packed by bzip2, which it is not", 10, b"\x0c"),
    ],
)
def test_an_npz_that_python_cannot_unpack_is_refused(what: str, offset: int, value: bytes, tmp_path: Path) -> None:
    data = bytearray(npz())
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + 1] = value
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(RistrettoError, match=r"x.npz: (not an .npz file of numbers|cannot be read)"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("kind", ["<a8", "<U8", "<c8", "<M8[s]"])
def test_arrays_of_other_than_numbers_are_refused_without_a_warning(kind: str, tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.ones(3, np.float64))
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (1,), }}".ljust(117) + "\n"
    damaged = array.getvalue()[:10] + header.encode() + bytes(64)
    (tmp_path / "x.npy").write_bytes(damaged)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", damaged)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(RistrettoError, match=rf"{name}: not an \.npz file"):
            read_npz(tmp_path / name)


def test_a_member_of_an_npz_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"12")
    with pytest.raises(RistrettoError, match=r"x.npz: not an \.npz file of numbers"):
        read_npz(tmp_path / "x.npz")


def test_a_number_too_large_for_float32_is_infinite_without_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([1e300, -1e300, 2]))
    assert read_npz(tmp_path / "x.npz")["x"].tolist() == [np.inf, -np.inf, 2]


class TestHdf5Data:
    LAYER = 'type: "HDF5Data" top: "data" hdf5_data_param { source: "list" batch_size: 2 }'

    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "list").write_text("a.h5")
        return tmp_path / "a.h5"

    def read(self) -> Any:
        return open_source(parse(self.LAYER, "LayerParameter", "").message, TEST).next()

    def test_numbers_of_a_kind_that_numpy_has_not_are_refused(self, file: Path) -> None:
        with h5py.File(file, "w") as h5:
            kind = h5py.h5t.IEEE_F32LE.copy()
            kind.set_ebias(1 << 20)
            h5py.h5d.create(h5.id, b"data", kind, h5py.h5s.create_simple((4,)))
        with pytest.raises(RistrettoError, match=r"^a.h5 is not an HDF5 file: "):
            self.read()

    def test_a_damaged_directory_is_refused(self, file: Path) -> None:
        with h5py.File(file, "w") as h5:
            h5["other"] = np.ones(3)
        data = bytearray(file.read_bytes())
        # the address of its object in the directory's only entry
        entry = data.index(b"SNOD") + 8
        data[entry + 8 : entry + 16] = struct.pack("<Q", 8)
        file.write_bytes(data)
        with pytest.raises(RistrettoError, match=r"^a.h5 "):
            self.read()

    def test_gigabytes_of_rows_that_were_never_written_are_refused(self, file: Path) -> None:
        with h5py.File(file, "w") as h5:
            h5.create_dataset("data", shape=(1 << 20, 1 << 10), dtype=np.float32, chunks=(1 << 10, 1 << 10))
        with pytest.raises(RistrettoError) as caught:
            self.read()
        assert str(caught.value) == "a.h5: dataset data has the shape 1048576x1024, but most of it is not stored"

    def test_a_few_rows_that_were_never_written_are_zeros(self, file: Path) -> None:
        with h5py.File(file, "w") as h5:
            h5.create_dataset("data", shape=(4, 3), dtype=np.float32)
        assert self.read()[0].tolist() == [[0, 0, 0], [0, 0, 0]]


def one_pass(text: str, **given: Any) -> dict[str, Any]:
    """All blobs of a net with these inputs, and weights by its fillers."""
    Path("net.prototxt").write_text(text)
    rng = np.random.default_rng(0)
    net = load_net("net.prototxt", None, NetState(TEST), rng=rng)
    return OnePass(net, rng=rng).run({name: np.asarray(value, np.float32) for name, value in given.items()})


@pytest.mark.usefixtures("workshop")
class TestNets:
    LRN = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: %d dim: 1 dim: 1 } } }
        layer { name: "n" type: "LRNRistretto" bottom: "x" top: "y" quantization_param { precision: MINIFLOAT }
                lrn_param { local_size: 4294967295 alpha: 4294967296 beta: 1 k: 0 } }"""

    def test_a_trimmed_lrn_over_billions_of_channels_takes_those_that_there_are(self) -> None:
        found = one_pass(self.LRN % 3, x=np.array([1, 2, 1]).reshape(1, 3, 1, 1))["y"]
        np.testing.assert_allclose(found.ravel(), [1 / 6, 2 / 6, 1 / 6], rtol=1e-6)

    def test_a_trimmed_lrn_of_more_channels_than_onnxruntime_can_prepare_is_refused(self) -> None:
        with pytest.raises(RistrettoError, match=r"has 1000 channels; the maximum is 512$"):
            one_pass(self.LRN % 1000)

    @pytest.mark.parametrize("kind", ["Accuracy", "SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss"])
    def test_more_classes_than_labels_can_tell_apart_are_refused_without_a_list_of_them(self, kind: str) -> None:
        text = f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 2147483647 }} }} }}
            layer {{ name: "l" type: "Input" top: "l" input_param {{ shape {{ dim: 1 }} }} }}
            layer {{ name: "y" type: "{kind}" bottom: "x" bottom: "l" top: "y" }}"""
        with pytest.raises(RistrettoError, match="2147483647 classes are more than float32 labels can distinguish"):
            one_pass(text)

    def test_more_items_than_regions_can_tell_apart_are_refused_without_a_list_of_them(self) -> None:
        text = """
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2147483647 dim: 1 dim: 1 dim: 1 } } }
            layer { name: "r" type: "Input" top: "r" input_param { shape { dim: 1 dim: 5 } } }
            layer { name: "y" type: "ROIPooling" bottom: "x" bottom: "r" top: "y"
                    roi_pooling_param { pooled_h: 1 pooled_w: 1 } }"""
        with pytest.raises(RistrettoError, match="2147483647 items are more than the regions' float32 can distinguish"):
            one_pass(text)

    def test_a_mean_without_padding_needs_no_array_of_the_images_size_to_be_refused(self) -> None:
        text = """
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 46000 dim: 46000 } } }
            layer { name: "y" type: "Pooling" bottom: "x" top: "y" pooling_param { pool: AVE_EXC_PAD kernel_size: 2 } }
            layer { name: "z" type: "Tile" bottom: "y" top: "z" tile_param { tiles: 2 } }"""
        tracemalloc.start()
        try:
            with pytest.raises(RistrettoError, match="has too many elements"):
                one_pass(text)
            assert tracemalloc.get_traced_memory()[1] < 500 << 20
        finally:
            tracemalloc.stop()
