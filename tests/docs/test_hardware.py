"""What docs/hardware.md says: the arithmetic, the layer by hand, net.json."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.cli.main import run
from ristretto_cli.exports.integers import json_fields
from ristretto_cli.integers import program as steps
from ristretto_cli.integers.arithmetic import requantized
from ristretto_cli.integers.program import Requantization
from ristretto_cli.integers.rounding import ShiftRounding, divided

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
SHARED = Path(os.environ.get("RISTRETTO_SHARED", ROOT.parent / "shared"))
LENET = SHARED / "data" / "models" / "lenet" / "lenet_iter_10000.caffemodel"
NAMES = {"half_even": "half_even", "half_up": "half_up", "away": "away", "down": "floor"}
NUMBERS = np.array([*range(-70, 70), 2**40 + 2**3, -(2**40) - 2**3, 12345678901])


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def code(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", section("Arithmetic"), flags=re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


# --- the arithmetic


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_lines_of_c_round_as_the_program_does(tmp_path: Path) -> None:
    calls = "".join(f'printf("{name} %d %lld\\n", s, (long long){name}(n, s));\n' for name in NAMES)
    main = f'int main(void) {{ long long n; int s; while (scanf("%lld %d", &n, &s) == 2) {{\n{calls}}} return 0; }}\n'
    (tmp_path / "x.c").write_text("#include <stdint.h>\n#include <stdio.h>\n" + code("c") + main)
    subprocess.run(["cc", "-std=c99", "-Wall", "-Werror", "-o", "x", "x.c"], cwd=tmp_path, check=True, timeout=100)
    pairs = [(n, s) for s in (1, 2, 3, 9) for n in NUMBERS.tolist()]
    text = "".join(f"{n} {s}\n" for n, s in pairs)
    done = subprocess.run([tmp_path / "x"], input=text, capture_output=True, text=True, check=True, timeout=100)
    found = [line.split() for line in done.stdout.splitlines()]
    for name, mode in NAMES.items():
        ours = [int(number) for each, _, number in found if each == name]
        expected = [int(divided(np.array([n]), s, 1, ShiftRounding(mode))[0]) for n, s in pairs]
        assert ours == expected, name


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
@pytest.mark.parametrize("shift", [1, 3])
def test_the_lines_of_verilog_round_as_the_program_does(shift: int, tmp_path: Path) -> None:
    show = "".join(f'$display("{name} %0d", {name});\n' for name in NAMES)
    (tmp_path / "x.v").write_text(
        f"module x;\nlocalparam S = {shift};\nlocalparam signed [9:0] ONE = 1, HALF = ONE << (S - 1);\n"
        f"reg signed [9:0] n, {', '.join(NAMES)};\ninteger i;\n"
        f"initial for (i = -70; i < 70; i = i + 1) begin\nn = i;\n{code('verilog')}{show}end\nendmodule\n"
    )
    subprocess.run(["iverilog", "-g2001", "-o", "x", "x.v"], cwd=tmp_path, check=True, timeout=100)
    done = subprocess.run(["vvp", "-n", "x"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=100)
    found = [line.split() for line in done.stdout.splitlines()]
    for name, mode in NAMES.items():
        ours = [int(number) for each, number in found if each == name]
        assert ours == divided(np.arange(-70, 70), shift, 1, ShiftRounding(mode)).tolist(), name


# --- the layer by hand


def rows() -> dict[str, list[int]]:
    """The table's rows: 25 numbers each."""
    lines = [line.split("|") for line in section("A layer by hand").splitlines() if line.startswith("|")]
    found = {line[1].split(":")[0].split("·")[0].strip(): " ".join(line[2:]) for line in lines[2:]}
    return {name: [int(word) for word in text.split()] for name, text in found.items()}


def test_the_layer_by_hand_is_computed_from_its_numbers() -> None:
    found, text = rows(), " ".join(section("A layer by hand").split())
    pixels, inputs, weights = (np.array(found[name]) for name in ("pixels", "input", "weights"))
    assert len(pixels) == len(inputs) == len(weights) == 25
    assert np.rint(pixels * 0.00390625 * 2**7).clip(-128, 127).astype(int).tolist() == inputs.tolist()
    products, bias = int((inputs * weights).sum()), round(0.040373 * 2**7)
    total = products + (bias << 7)
    assert f"The sum of products is {products}." in text
    assert f"rounded {bias}, shifted left by fl_in: {bias} · 2^7 = {bias << 7}. In all {total}." in text
    to = Requantization(7 + 7 - 5, -128, 127)
    results = {mode: requantized(total, to, mode) for mode in ShiftRounding}
    even, up = results[ShiftRounding.HALF_EVEN], results[ShiftRounding.HALF_UP]
    assert (
        f"{total} / 2^{to.shift} = {total / 2**to.shift}. Half to even: ({total} + 255 + (16 & 1)) >> 9 = {even},"
        in text
    )
    assert f"which stands for {even} · 2^-5 = {even / 32}." in text
    assert f"`half_up` and `away` give ({total} + 256) >> 9 = {up}, `floor` {results[ShiftRounding.FLOOR]}." in text
    assert results[ShiftRounding.AWAY] == up


@pytest.mark.skipif(not LENET.is_file(), reason=f"no LeNet at {LENET}")
def test_the_layer_by_hand_is_lenets() -> None:
    weights, biases = (blob.array.astype(np.float64) for blob in read_weights(LENET).layers["conv1"])
    assert np.rint(weights[2].ravel() * 2**7).astype(int).tolist() == rows()["weights"]
    assert f"{biases[2]:.5g}" == "0.040373"
    integers = np.rint(weights * 2**7).reshape(20, -1)
    ends = [np.maximum(integers, 0).sum(1), np.minimum(integers, 0).sum(1)]
    bias = np.rint(biases * 2**7) * 2**7
    high = (ends[0] * 127 + ends[1] * -128 + np.maximum(bias, 0)).max()
    low = (ends[0] * -128 + ends[1] * 127 + np.minimum(bias, 0)).min()
    assert steps.width_of(int(low), int(high)) == 19


@pytest.mark.skipif(not LENET.is_file(), reason=f"no LeNet at {LENET}")
def test_truncation_gives_other_weights() -> None:
    layers, differing, count = read_weights(LENET).layers, 0, 0
    for name, frac_bits in {"conv1": 7, "conv2": 8, "ip1": 9, "ip2": 8}.items():
        scaled = np.ldexp(layers[name][0].array.astype(np.float64), frac_bits)
        differing += int((np.trunc(scaled) != np.rint(scaled)).sum())
        count += scaled.size
    assert f"another integer for {100 * differing / count:.0f} % of LeNet's 8-bit weights" in " ".join(TEXT.split())


# --- net.json


def test_every_step_and_each_of_its_fields_is_described() -> None:
    table = section("net.json")
    for kind in get_args(steps.Step):
        row = next(line for line in table.splitlines() if re.match(rf"\| [^|]*`{kind.__name__}`", line))
        for field in json_fields(kind):
            common = ("x", "xs", "y")
            assert field.name in common or f"`{field.name}`" in row, f"{kind.__name__}.{field.name}"


def test_every_key_is_described(workshop: Any) -> None:
    workshop.net("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }
        layer { name: "c" type: "ConvolutionRistretto" bottom: "x" top: "c"
          convolution_param { num_output: 2 kernel_size: 1 }
          quantization_param { bw_layer_in: 8 bw_layer_out: 8 bw_params: 8 fl_params: 4 } }
        layer { name: "pool" type: "Pooling" bottom: "c" top: "pool" pooling_param { kernel_size: 2 } }
    """)
    workshop.weights({"c": [np.ones((2, 2, 1, 1)), np.ones(2)]})
    for name in ("integers", "mem"):
        assert (
            run(["export", f"--format={name}", "--model=net.prototxt", "--weights=net.caffemodel", "--output=out"]) == 0
        )
        found = json.loads(Path("out/net.json").read_text())
        assert f"`{found['format']}`" in section("net.json")
        assert f"`version` {found['version']}." in section("net.json")
        geometries = [key for step in found["steps"] for key in step.get("geometry", {})]
        for key in [*found, *next(iter(found["places"].values())), *found["inputs"][0], *geometries]:
            assert key == "format" or f"`{key}`" in section("net.json"), key
        shutil.rmtree("out")
