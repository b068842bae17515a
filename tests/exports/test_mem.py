"""Integer programs as memory files: layouts, the three kinds of files, the Verilog header, the check."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.cli.main import run
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports import mem, memory_files
from ristretto_cli.exports.memory_files import Layout, layout

NET = """
name: "net"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "c/1" type: "ConvolutionRistretto" bottom: "x" top: "c/1"
  convolution_param { num_output: 4 kernel_size: 3 }
  quantization_param { bw_params: BITS fl_params: FL bw_layer_in: 7 fl_layer_in: 5 bw_layer_out: 6 fl_layer_out: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "c/1" top: "bn" batch_norm_param { use_global_stats: true } }
layer { name: "pool" type: "Pooling" bottom: "bn" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "fc" type: "FcRistretto" bottom: "pool" top: "fc" inner_product_param { num_output: 3 }
  quantization_param { bw_params: BITS fl_params: FL bw_layer_in: 8 fl_layer_in: 5 bw_layer_out: 9 fl_layer_out: 4 } }
"""


@pytest.fixture
def job(workshop: Any) -> Any:
    rng = np.random.default_rng(1)
    workshop.weights(
        {
            "c/1": [rng.normal(size=(4, 3, 3, 3)) / 3, rng.normal(size=4)],
            "bn": [rng.normal(size=4), rng.uniform(0.5, 2, 4), [1]],
            "fc": [rng.normal(size=(3, 16)) / 3, rng.normal(size=3)],
        }
    )
    np.savez("x.npz", x=rng.normal(size=(4, 3, 6, 6)).astype(np.float32))
    return workshop


def export(job: Any, *flags: str, bits: int = 8) -> None:
    job.net(NET.replace("BITS", str(bits)).replace("FL", str(bits - 1)))
    args = ("--model=net.prototxt", "--weights=net.caffemodel", "--output=out", "--input=x.npz", "--check=4")
    assert run(("export", "--format=mem", *args, *flags)) == 0


def numbers() -> dict[str, int | str]:
    return mem.parse_header(Path("out/net.vh").read_text())


def words(file: str) -> list[int]:
    """The words of a .mem file, without the exporter's reader."""
    lines = Path(file).read_text().splitlines()
    return [int(line, 16) for line in lines if not line.startswith("//")]


# --- words


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("per_line", [1, 3])
@pytest.mark.parametrize("pack", [False, True])
def test_every_number_of_every_width_is_read_back(bits: int, per_line: int, pack: bool, tmp_path: Path) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rows = np.random.default_rng(bits).integers(low, high + 1, (5, 7))
    rows[0, :2] = low, high
    to = layout(bits, signed=True, rows=5, columns=7, per_line=per_line, share=True, pack=pack)
    memory_files.write_mem(tmp_path / "x.mem", rows, to, ["a comment"])
    assert memory_files.read_mem(tmp_path / "x.mem", to).tolist() == rows.tolist()
    unsigned = Layout(bits, False, to.field, to.per_line, 5, 7)
    memory_files.write_mem(tmp_path / "u.mem", rows - low, unsigned, [])
    assert memory_files.read_mem(tmp_path / "u.mem", unsigned).tolist() == (rows - low).tolist()


@pytest.mark.parametrize("pack", [False, True])
def test_wide_numbers_are_read_back(pack: bool, tmp_path: Path) -> None:
    rows = np.array([[-(2**60), 2**60 - 1, -1, 0]])
    to = layout(61, signed=True, rows=1, columns=4, per_line=3, share=True, pack=pack)
    memory_files.write_mem(tmp_path / "x.mem", rows, to, [])
    assert memory_files.read_mem(tmp_path / "x.mem", to).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("bits", "per_line", "pack", "expected"),
    [
        # 12 bits, two's complement: three hexadecimal digits.
        (12, 1, False, ["fff", "800", "7ff", "001", "ffe"]),
        # 3 bits fit in one digit; the upper bit is not part of the word.
        (3, 1, False, ["7", "4", "3", "1", "6"]),
        # Two of 3 bits in a word of 6, the first one below: -4 * 8 + 7.
        (3, 2, False, ["27", "0b", "06"]),
        # Packed, 3 bits are extended to 4 by their sign, and two of them fill a byte.
        (3, 1, True, ["cf", "13", "0e"]),
        # Three of 4 bits would end within a byte, so there are four.
        (3, 3, True, ["13cf", "000e"]),
        (12, 1, True, ["ffff", "f800", "07ff", "0001", "fffe"]),
    ],
)
def test_words(bits: int, per_line: int, pack: bool, expected: list[str], tmp_path: Path) -> None:
    row = [-1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 1, -2]
    to = layout(bits, signed=True, rows=1, columns=5, per_line=per_line, share=True, pack=pack)
    memory_files.write_mem(tmp_path / "x.mem", np.array([row]), to, [])
    assert (tmp_path / "x.mem").read_text().split() == expected
    assert to.lines == len(expected)


def test_each_row_begins_a_word(tmp_path: Path) -> None:
    to = layout(4, signed=False, rows=2, columns=3, per_line=2, share=True, pack=False)
    memory_files.write_mem(tmp_path / "x.mem", np.array([[1, 2, 3], [4, 5, 6]]), to, [])
    assert (tmp_path / "x.mem").read_text() == "21\n03\n54\n06\n"


def test_coe_and_mif_have_the_same_words(tmp_path: Path) -> None:
    to = layout(9, signed=True, rows=1, columns=18, share=True, pack=False)
    rows = np.arange(-9, 9).reshape(1, 18)
    for suffix, write in memory_files.WRITERS.items():
        write(tmp_path / f"x{suffix}", rows, to, ["a comment"])
    expected = [n % 2**9 for n in range(-9, 9)]
    assert words(str(tmp_path / "x.mem")) == expected
    coe = (tmp_path / "x.coe").read_text()
    assert coe.startswith("; a comment\nmemory_initialization_radix=16;\nmemory_initialization_vector=\n1f7,\n")
    vector = re.search(r"memory_initialization_vector=([^;]*);", coe)
    assert vector and [int(word, 16) for word in vector[1].split(",")] == expected
    mif = (tmp_path / "x.mif").read_text()
    assert "-- a comment\nWIDTH=9;\nDEPTH=18;\nADDRESS_RADIX=HEX;\nDATA_RADIX=HEX;\nCONTENT BEGIN\n" in mif
    found = re.findall(r"^ +([0-9a-f]+) : ([0-9a-f]+);$", mif, flags=re.MULTILINE)
    assert [(int(address, 16), int(word, 16)) for address, word in found] == list(enumerate(expected))
    assert mif.endswith("END;\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("01\n02\n", "has 2 words instead of 3"),
        ("01\n02\n3\n", "3 does not have 2 digits"),
        ("01\n02\nxy\n", "cannot be read as a memory"),
        ("01\n02\n8f\n", "a word is wider than 7 bits"),
    ],
)
def test_damaged_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.mem").write_text(text)
    with pytest.raises(RistrettoError, match=message):
        memory_files.read_mem(tmp_path / "x.mem", Layout(7, True, 7, 1, 1, 3))


def test_checksums_depend_on_the_order_and_wrap() -> None:
    assert memory_files.checksums(np.array([[1, 2], [-4, 0]])) == (2**64 - 1, (1 + 3 - 1 - 1) % 2**64)
    assert memory_files.checksums(np.array([2, 1, -4, 0])) != memory_files.checksums(np.array([1, 2, -4, 0]))


# --- the export


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 13, 16])
@pytest.mark.parametrize("flags", [(), ("--per_line=4",), ("--pack",), ("--pack", "--per_line=5")])
def test_what_is_written_runs_as_the_program(
    bits: int, flags: tuple[str, ...], job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    export(job, *flags, "--vectors=3", bits=bits)
    out = capsys.readouterr().out
    assert re.search(r"checked: 4 images, [\d,]+ values of \d+ blobs: 0 differ", out)
    assert "by iverilog" in out
    assert numbers()["C_1__WEIGHTS_BITS"] == bits


def test_the_files_hold_the_integers_of_the_weights(job: Any) -> None:
    export(job)
    weights = np.random.default_rng(1).normal(size=(4, 3, 3, 3)) / 3
    integers = np.rint(weights.astype(np.float32) * 128).clip(-128, 127).astype(int)
    assert words("out/weights/c_1.mem") == (integers.ravel() % 256).tolist()
    found = numbers()
    assert found["C_1__WEIGHTS_FILE"] == "weights/c_1.mem"
    assert [found[f"C_1__WEIGHTS_SHAPE_{axis}"] for axis in range(4)] == [4, 3, 3, 3]
    assert (found["C_1__WEIGHTS_FRAC_BITS"], found["C_1_IN__FRAC_BITS"], found["C_1__SUM_FRAC_BITS"]) == (7, 5, 12)
    assert found["C_1__BIASES_BITS"] == found["C_1__SUM_BITS"]
    # The fraction bits of the sums less those of the output.
    assert (found["FC__SUM_FRAC_BITS"], found["FC__FRAC_BITS"], found["FC__REQUANTIZE_SHIFT"]) == (12, 4, 8)
    assert (found["FC__REQUANTIZE_LOW"], found["FC__REQUANTIZE_HIGH"]) == (-256, 255)
    comments = Path("out/weights/c_1.mem").read_text().splitlines()[:4]
    assert comments == [
        "// weights of layer c/1",
        "// two's complement, 8 bits, 7 fraction bits",
        "// order: output channels, input channels of the group, kernel: 4 x 3 x 3 x 3, the last axis first to vary",
        "// 108 words of 8 bits",
    ]


def test_vectors_are_laid_out_like_weights(job: Any) -> None:
    export(job, "--vectors=2", "--per_line=3", "--pack")
    found = numbers()
    assert (found["C_1_IN__BITS"], found["C_1_IN__VECTORS_FIELD_BITS"], found["C_1_IN__VECTORS_PER_LINE"]) == (7, 8, 3)
    x = np.rint(np.load("x.npz")["x"][:2].astype(np.float64) * 32).clip(-64, 63).astype(int).reshape(-1, 3) % 256
    assert words("out/vectors/c_1_in.mem") == [a + (b << 8) + (c << 16) for a, b, c in x.tolist()]


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "away", "floor"])
def test_the_rounding_is_in_the_header(rounding: str, job: Any) -> None:
    export(job, f"--rounding={rounding}")
    assert numbers()["ROUNDING"] == ["half_even", "half_up", "away", "floor"].index(rounding)
    assert mem.read_program(Path("out")).rounding.value == rounding


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("net.vh", "FC__REQUANTIZE_SHIFT = 8", "FC__REQUANTIZE_SHIFT = 7", "FC__REQUANTIZE_SHIFT is not that of net"),
        ("net.vh", "FC__WEIGHTS_BITS = 8", "FC__WEIGHTS_BITS = 8;\nlocalparam FC__BITS = 8", "FC__BITS is there twice"),
        ("net.vh", "localparam FC__WEIGHTS_ROWS = 3;\n", "", "FC__WEIGHTS_ROWS"),
        ("net.json", '"ristretto mem"', '"ristretto integers"', "is not a program of this version"),
    ],
)
def test_the_reader_refuses_files_that_do_not_agree(file: str, old: str, new: str, message: str, job: Any) -> None:
    export(job)
    path = Path("out") / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(RistrettoError, match=message):
        mem.read_program(Path("out"))


def test_a_changed_weight_changes_what_is_read(job: Any) -> None:
    export(job)
    path = Path("out/weights/fc.mem")
    before = next(step for step in mem.read_program(Path("out")).steps if getattr(step, "layer", "") == "fc")
    lines = path.read_text().splitlines()
    lines[-1] = "80"
    path.write_text("\n".join(lines))
    after = next(step for step in mem.read_program(Path("out")).steps if getattr(step, "layer", "") == "fc")
    assert (before.weights.ravel()[:-1] == after.weights.ravel()[:-1]).all()  # type: ignore[union-attr]
    assert after.weights.ravel()[-1] == -128  # type: ignore[union-attr]


def test_without_iverilog_the_check_says_so(job: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PATH", "")
    export(job)
    assert capsys.readouterr().out.splitlines()[-1] == "not checked by iverilog: not installed"


iverilog = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")


@iverilog
@pytest.mark.parametrize("flags", [(), ("--per_line=4", "--pack")])
def test_a_simulator_reads_the_same_integers(flags: tuple[str, ...], job: Any, capsys: Any) -> None:
    export(job, *flags, "--vectors=3")
    last = capsys.readouterr().out.splitlines()[-1]
    count = len(list(Path("out").rglob("*.mem")))
    assert last == f"checked by iverilog: {count} memories, 0 wrong"


@iverilog
@pytest.mark.parametrize("change", ["a value", "two swapped", "a word less", "a word more"])
def test_a_simulator_finds_what_is_wrong(change: str, job: Any) -> None:
    export(job)
    path = Path("out/weights/fc.mem")
    lines = path.read_text().splitlines()
    changed = {
        "a value": [*lines[:-1], "80"],
        "two swapped": [*lines[:-2], lines[-1], lines[-2]],
        "a word less": lines[:-1],
        "a word more": [*lines, "00"],
    }[change]
    assert changed != lines
    path.write_text("\n".join(changed) + "\n")
    with pytest.raises(RistrettoError, match=r"and it is wrong: weights/fc\.mem: wrong"):
        mem.simulated(Path("out"))


@iverilog
def test_the_header_is_verilog(job: Any) -> None:
    export(job)
    Path("out/top.v").write_text(
        'module top;\n`include "net.vh"\ninitial $display("%0d", FC__REQUANTIZE_LOW);\nendmodule'
    )
    subprocess.run(["iverilog", "-g2001", "-Wall", "-o", "top", "top.v"], cwd="out", check=True, timeout=100)
    done = subprocess.run(["vvp", "top"], cwd="out", check=True, timeout=100, capture_output=True, text=True)
    assert done.stdout == "-256\n"


def test_numbers_of_more_than_32_bits_have_64(job: Any) -> None:
    text = 'localparam A = -64\'sd2147483648;\nlocalparam B = 2147483647;\nlocalparam C = "a/b.mem";\n// c\n'
    assert mem.parse_header(text) == {"A": -(2**31), "B": 2**31 - 1, "C": "a/b.mem"}
    with pytest.raises(ValueError, match="endmodule"):
        mem.parse_header("endmodule\n")


@pytest.mark.parametrize("mean", ["mean_value: 3 mean_value: 5", 'mean_file: "mean.binaryproto"'])
def test_the_input_files_map_pixels_to_the_vectors(mean: str, job: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 3), np.uint8)
    job.database("db", pixels)
    blob = new("BlobProto", num=1, channels=2, height=3, width=3, data=np.arange(18.0))
    (job.folder / "mean.binaryproto").write_bytes(blob.SerializeToString())
    job.net(f"""
        layer {{ name: "x" type: "Data" top: "x" transform_param {{ scale: 0.25 {mean} }}
          data_param {{ source: "db" batch_size: 2 backend: LMDB }} }}
        layer {{ name: "c" type: "ConvolutionRistretto" bottom: "x" top: "c"
          convolution_param {{ num_output: 1 kernel_size: 1 bias_term: false }}
          quantization_param {{ bw_layer_in: 7 fl_layer_in: 2 bw_layer_out: 8 fl_layer_out: 2 bw_params: 8 }} }}
    """)
    job.weights({"c": [np.ones((1, 2, 1, 1))]})
    args = ("--model=net.prototxt", "--weights=net.caffemodel", "--output=out", "--vectors=4", "--check=4")
    assert run(("export", "--format=mem", *args)) == 0
    found = numbers()
    end = 1 << int(found["C_IN__INPUT_BITS"])
    memory = np.array([word - end if word >= end // 2 else word for word in words("out/input/c_in.mem")])
    if "file" in mean:
        integers = (int(found["C_IN__INPUT_FACTOR"]) * pixels.astype(int) + memory.reshape(2, 3, 3)).clip(-64, 63)
    else:
        table = memory.reshape(2, 256)
        integers = table[np.arange(2)[:, None, None], pixels]
    assert words("out/vectors/c_in.mem") == (integers.ravel() % 128).tolist()
