"""Analysis of trimmed nets: the part that costs most comes first, and figures are those of the formats."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.cli.main import run
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import Role
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.quantize.analysis_report import analysis_lines, findings
from ristretto_cli.quantize.analyze import AnalysisOptions, NetAnalysis, PartAnalysis, analyze
from ristretto_cli.quantize.part_error import fewest_bits, part_error, sums_of
from ristretto_cli.scoring.user_data import UserData

from ..conftest import IDENTITY

NET = """
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 8 dim: 2 dim: 6 dim: 6 } } }
    layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
            convolution_param { num_output: 6 kernel_size: 3 } }
    layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
    layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
            convolution_param { num_output: 8 kernel_size: 3 } }
    layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
    layer { name: "fc1" type: "InnerProduct" bottom: "conv2" top: "fc1" inner_product_param { num_output: 12 } }
    layer { name: "relu3" type: "ReLU" bottom: "fc1" top: "fc1" }
    layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2" inner_product_param { num_output: 5 } }
    layer { name: "prob" type: "Softmax" bottom: "fc2" top: "prob" }
"""
SHAPES = {"conv1": (6, 2, 3, 3), "conv2": (8, 6, 3, 3), "fc1": (12, 32), "fc2": (5, 12)}
QUANTIZE = [
    "quantize",
    "--model=net.prototxt",
    "--weights=net.caffemodel",
    "--trimming_mode=dynamic_fixed_point",
    "--bw=conv_params=8,fc_params=8,layer=8,bias=16",
    "--fl_layer=range",
    "--input=x.npz",
    "--noscore",
]
# The layer, the part, the field of its format, and by how much it is changed, or the width it gets.
FAULTS = [
    ("conv1", Role.LAYER_IN, "fl_layer_in", 3),
    ("conv1", Role.PARAMS, "fl_params", 3),
    ("conv1", Role.LAYER_OUT, "fl_layer_out", -6),
    ("conv1", Role.BIAS, "fl_bias", 9),
    ("conv2", Role.LAYER_IN, "fl_layer_in", -6),
    ("conv2", Role.PARAMS, "bw_params", 2),
    ("fc1", Role.LAYER_IN, "fl_layer_in", 3),
    ("fc1", Role.PARAMS, "fl_params", -5),
    ("fc2", Role.PARAMS, "fl_params", 4),
    ("fc2", Role.LAYER_OUT, "fl_layer_out", 4),
]


def made_up_net(workshop: Any, seed: int) -> None:
    """Writes a net with random weights, and images."""
    rng = np.random.default_rng(seed)
    workshop.net(NET)
    weights = {}
    for name, shape in SHAPES.items():
        fan_in = math.prod(shape[1:])
        weights[name] = [rng.normal(0, math.sqrt(2 / fan_in), shape), rng.normal(0, 0.3, shape[0])]
    workshop.weights(weights)
    np.savez("x.npz", data=rng.normal(0, 1, (32, 2, 6, 6)).astype(np.float32))


def plant(layer: str, field: str, change: int) -> None:
    """Spoil one format in quantized.prototxt."""
    message = read_net("quantized.prototxt").message
    (quantization,) = (each.quantization_param for each in message.layer if each.name == layer)
    if field.startswith("fl_"):
        change += getattr(quantization, field)
    else:  # keep the integer bits
        quantization.fl_params += change - quantization.bw_params
    setattr(quantization, field, change)
    Path("quantized.prototxt").write_text(to_text(message))


def analysis(**settings: Any) -> NetAnalysis:
    with np.load("x.npz") as arrays:
        data = UserData(None, dict(arrays))
    return analyze("quantized.prototxt", "net.caffemodel", AnalysisOptions(4, data=data, **settings))


def part(found: NetAnalysis, layer: str, role: Role) -> PartAnalysis:
    return next(each for each in found.parts if (each.layer, each.role) == (layer, role))


@pytest.mark.parametrize("seed", range(len(FAULTS)))
def test_a_planted_fault_comes_first(workshop: Any, seed: int) -> None:
    layer, role, field, change = FAULTS[seed]
    made_up_net(workshop, seed)
    assert run(QUANTIZE) == 0
    plant(layer, field, change)
    found = analysis()
    assert (found.parts[0].layer, found.parts[0].role) == (layer, role)
    assert findings(found)[1].startswith(f"- {layer} {role.value}: ")
    assert found.parts[0].damage.divergence > 2 * found.parts[1].damage.divergence


def test_the_parts_of_a_layer_and_of_the_net_are_measured_as_nets_of_their_own(workshop: Any) -> None:
    made_up_net(workshop, 0)
    assert run(QUANTIZE) == 0
    message = read_net("quantized.prototxt").message
    for layer in message.layer:
        if layer.HasField("quantization_param") and layer.name != "fc1":
            for name in ("layer_in", "layer_out", "params"):
                setattr(layer.quantization_param, f"trim_{name}", False)
    Path("only.prototxt").write_text(to_text(message))
    whole = analysis(leave_one_out=True)
    with np.load("x.npz") as arrays:
        data = UserData(None, dict(arrays))
    only = analyze("only.prototxt", "net.caffemodel", AnalysisOptions(4, data=data))
    fc1 = next(each for each in whole.layers if each.layer == "fc1")
    assert {each.layer for each in only.parts} == {"fc1"}
    assert only.trimmed.divergence > 0
    assert fc1.alone.batches == 4
    assert fc1.alone.divergence == pytest.approx(only.trimmed.divergence, rel=1e-3)
    assert only.layers[0].alone.divergence == pytest.approx(only.trimmed.divergence, rel=1e-3)
    assert all(each.without is not None for each in whole.layers)
    costliest = max(whole.layers, key=lambda each: each.alone.divergence)
    assert costliest.without is not None and costliest.without.divergence < whole.trimmed.divergence


def test_figures_are_those_of_the_format(two_classes: Any) -> None:
    # Pixels are 200/256 and 50/256, half of each. 8 bits with fl 8 end at 127/256; 3 bits with fl 1 have steps of 1/2.
    files = two_classes()
    text = quantized(files, "bw_layer_in: 8 fl_layer_in: 8 trim_params: false trim_layer_out: false")
    Path("quantized.prototxt").write_text(text)
    found = analyze("quantized.prototxt", "net.caffemodel", AnalysisOptions(5))
    (only,) = found.parts
    error = only.error
    assert (only.layer, only.role, only.reads_data) == ("conv", Role.LAYER_IN, True)
    assert (error.low, error.high) == (50 / 256, 200 / 256)
    assert (error.format_low, error.format_high) == (-0.5, 127 / 256)
    assert (error.clipped, error.zeroed) == (0.5, 0)
    assert error.sqnr == pytest.approx(10 * math.log10((200**2 + 50**2) / (200 - 127) ** 2), abs=1e-3)
    assert sum(error.histogram.counts[:1]) == sum(error.histogram.counts[-1:]) == sum(error.histogram.counts) / 2
    assert (found.score, found.float_net.score) == ("accuracy", pytest.approx(0.8))
    assert found.layers[0].output_sqnr == pytest.approx(error.sqnr, abs=1e-3)
    lines = "\n".join(analysis_lines(found, columns=120))
    assert "conv layer_in: 50 % of the values are clipped" in lines
    assert "--unsigned" in lines and "█" in lines
    assert "█" not in "\n".join(analysis_lines(found, columns=80))


def quantized(files: Any, settings: str) -> str:
    """The text of the net of two classes with a trimmed convolution."""
    from ..conftest import NET as TWO_CLASSES

    return TWO_CLASSES.replace(
        'name: "conv" type: "Convolution"',
        f'name: "conv" type: "ConvolutionRistretto" quantization_param {{ {settings} }}',
    )


def test_remedies_are_those_of_the_mode(two_classes: Any) -> None:
    files = two_classes()
    settings = "bw_layer_in: 8 fl_layer_in: 8 trim_layer_out: false"
    power = "precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: 0"
    for text, has_flags in ((f"{settings} bw_params: 8 fl_params: 6", True), (f"{settings} {power}", False)):
        Path("quantized.prototxt").write_text(quantized(files, text))
        sentence = findings(analyze("quantized.prototxt", "net.caffemodel", AnalysisOptions(5)))[1]
        assert "50 % of the values are clipped" in sentence
        assert "With the same width, 8 bits, fl 7 gives an exact" in sentence
        assert ("--" in sentence) == has_flags


def test_shares_and_batches_are_written_in_words(two_classes: Any) -> None:
    files = two_classes()
    Path("quantized.prototxt").write_text(quantized(files, "bw_params: 8 fl_params: 7"))
    found = analyze("quantized.prototxt", "net.caffemodel", AnalysisOptions(1))
    assert analysis_lines(found)[0] == "quantized.prototxt, 1 batch."


def test_values_that_become_zero_are_counted() -> None:
    values = np.array([0, 0.1, 0.2, 0.6, -0.1], np.float32)
    number_format = Fixed(4, 1)
    sums = sums_of(values, np.array([0, 0, 0, 0.5, 0], np.float32), number_format)
    error = part_error(sums, values, number_format, 30)
    assert (error.zeroed, error.clipped) == (0.75, 0)


def test_the_fewest_bits_reach_the_ratio() -> None:
    eighths = np.arange(-8, 8, dtype=np.float32) / 8
    assert fewest_bits(Fixed(2, 0), eighths, 100.0) == 4
    assert fewest_bits(Fixed(2, 0, signed=False), np.abs(eighths), 100.0) == 4  # to 8/8
    assert fewest_bits(Fixed(2, 0), eighths * 1024, 100.0) == 4
    values = np.random.default_rng(0).normal(0, 1, 4000).astype(np.float32)
    needed = [fewest_bits(Fixed(2, 0), values, target) for target in (12.0, 24.0, 36.0, 48.0)]
    assert needed == sorted(needed) and len(set(needed)) == 4
    assert fewest_bits(Fixed(2, 0), values, 400.0) is None
    assert fewest_bits(PowerOfTwo(-8, -1), values, 10.0) is None
    assert fewest_bits(Minifloat(2, 2), np.array([1, 1.5, 3, 0.75], np.float32), 100.0) == 4


def test_the_command_writes_a_table_json_and_csv(two_classes: Any, capfd: pytest.CaptureFixture[str]) -> None:
    files = two_classes()
    Path("quantized.prototxt").write_text(
        "# Weights: net.caffemodel\n" + quantized(files, "bw_params: 8 fl_params: 7 bw_layer_in: 2 fl_layer_in: 0")
    )
    assert run(["analyze", "--iterations=5", "--json=a.json", "--csv=a.csv"]) == 0
    out = capfd.readouterr().out
    assert out.index("conv layer_in") < out.index("conv params")
    assert "What stands out:\n- conv layer_in: " in out
    found = json.loads(Path("a.json").read_text())
    with Path("a.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["role"] for row in rows] == [each["role"] for each in found["parts"]]
    assert float(rows[0]["divergence"]) == pytest.approx(found["parts"][0]["only_this_part"]["divergence"])
    assert found["divergence_is"] == "kullback_leibler"
    assert run(["analyze", "--iterations=5", "--json=-"]) == 0
    assert json.loads(capfd.readouterr().out)["parts"] == found["parts"]


def test_the_float_net_may_have_other_weights(two_classes: Any) -> None:
    files = two_classes()
    Path("quantized.prototxt").write_text(
        quantized(files, "bw_params: 8 fl_params: 6 trim_layer_in: false trim_layer_out: false")
    )
    other = {**IDENTITY, "conv": [[[[[0.5]], [[0]]], [[[0]], [[0.5]]]]]}
    files.workshop.weights(other, "other.caffemodel")
    own = analyze("quantized.prototxt", "net.caffemodel", AnalysisOptions(5))
    assert own.parts[0].error.sqnr == math.inf and own.trimmed.divergence == 0
    found = analyze(
        "quantized.prototxt", "net.caffemodel", AnalysisOptions(5), against=("net.prototxt", "other.caffemodel")
    )
    assert found.parts[0].error.sqnr == pytest.approx(0)  # twice the weights
    assert found.trimmed.divergence > 0


def test_two_trimmed_nets_are_compared(two_classes: Any, capfd: pytest.CaptureFixture[str]) -> None:
    files = two_classes()
    for name, bits in (("a", 2), ("b", 8)):
        Path(f"{name}.prototxt").write_text(quantized(files, f"bw_layer_in: {bits} fl_layer_in: {bits - 2}"))
    flags = ["--model=a.prototxt", "--weights=net.caffemodel", "--against=b.prototxt", "--iterations=5"]
    assert run(["analyze", *flags, "--json=c.json"]) == 0
    out = capfd.readouterr().out
    assert "Each net is compared with its own float net." in out
    assert "conv layer_in" in out and "2 bits, fl 0" in out and "8 bits, fl 6" in out
    found = json.loads(Path("c.json").read_text())
    assert found["other"]["model"] == "b.prototxt"
    parts = [*found["parts"], *found["other"]["parts"]]
    assert {each["only_this_part"]["batches"] for each in parts} == {5}


def test_nets_that_cannot_be_analyzed_are_refused(two_classes: Any, capfd: pytest.CaptureFixture[str]) -> None:
    files = two_classes()
    flags = ["--weights=net.caffemodel", "--iterations=1"]
    assert run(["analyze", "--model=net.prototxt", *flags]) != 0
    assert "the net has no trimmed layers" in capfd.readouterr().err
    Path("quantized.prototxt").write_text(quantized(files, "bw_params: 8 fl_params: 7"))
    files.workshop.net(NET, "other.prototxt")
    assert run(["analyze", *flags, "--against=other.prototxt"]) != 0
    assert 'layer "conv" of quantized.prototxt has parameters of other shapes here' in capfd.readouterr().err
    assert run(["analyze"]) != 0
    assert "no weights file is named in its header" in capfd.readouterr().err
