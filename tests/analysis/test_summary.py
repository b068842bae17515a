"""The summary: a table by hand, and totals as published."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.analysis.nets_without_data import build_without_data
from ristretto_cli.analysis.summary import Summary, summarize, summary_as_json, summary_lines
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.net.build import NetState

MODELS = Path(__file__).resolve().parents[2] / "models"

TINY = """
    name: "tiny"
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 dim: 4 dim: 4 } } }
    layer { name: "conv" type: "ConvolutionRistretto" bottom: "x" top: "conv"
            convolution_param { num_output: 8 kernel_size: 3 }
            quantization_param { %s } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 10 } }
"""
FIXED = "bw_layer_in: 8 bw_params: 4 bw_layer_out: 16"


def summary_of(file: str | Path, **given: tuple[int, ...]) -> Summary:
    return summarize(build_without_data(read_net(file), NetState(), given))


def test_a_summary_by_hand(workshop: Any) -> None:
    # conv: 8 x 9 weights and 8 biases, 8 x 2 x 2 x 9 products; fc: 32 x 10 and 10, 320 products
    assert summary_lines(summary_of(workshop.net(TINY % FIXED)))[:-1] == [
        "tiny (net.prototxt), phase TEST",
        "",
        "layer  type                  output        parameters  MACs  bits in/weights/out",
        "x      Input                 2x1x4x4",
        "conv   ConvolutionRistretto  2x8x2x2               80   288  8/4/16",
        "relu   ReLU                  conv 2x8x2x2",
        "fc     InnerProduct          2x10                 330   320",
        "",
        "Parameters: 410, 1,640 bytes in 32 bits",
        "Trimmed: 1,360 bytes, 1.2 times smaller",  # 80 x 4 bits and 330 x 32
        "MACs: 608 for one of the 2 inputs of a batch",
    ]


@pytest.mark.parametrize("bottom", ["{0}", "0"])  # a chain, and one blob that all layers read
def test_the_work_grows_linearly_with_the_number_of_layers(workshop: Any, bottom: str) -> None:
    calls = []
    for count in (300, 600):
        text = 'layer { name: "0" type: "Input" top: "0" input_param { shape { dim: 1 dim: 2 dim: 1 dim: 1 } } }'
        for i in range(count):
            text += f'layer {{ name: "{i + 1}" type: "ReLU" bottom: "{bottom.format(i)}" top: "{i + 1}" }}\n'
        net = workshop.net(text)
        calls.append(0)

        def count_call(frame: object, event: str, arg: object) -> None:
            calls[-1] += event in ("call", "c_call")

        sys.setprofile(count_call)
        try:
            summary_lines(summary_of(net))
        finally:
            sys.setprofile(None)
    assert calls[1] < 2.1 * calls[0]


def test_without_trimmed_layers_there_are_no_bits(workshop: Any) -> None:
    lines = summary_lines(summary_of(workshop.net((TINY % "").replace("Ristretto", ""))))
    assert lines[2].split() == ["layer", "type", "output", "parameters", "MACs"]
    assert not any(line.startswith("Trimmed") for line in lines)


@pytest.mark.parametrize(
    ("settings", "widths", "size"),
    [
        (FIXED, "8/4/16", 80 * 4),
        ("precision: MINIFLOAT mant_bits: 3 exp_bits: 4", "8/8/8", 80 * 8),
        # exponents -8 to -1 are 8, so 3 bits and the sign; biases stay
        ("precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: -1 bw_layer_in: 8 bw_layer_out: 8", "8/4/8", 544),
        ("", "32/32/32", 80 * 32),
        (f"{FIXED} bw_bias: 12 fl_bias: 3", "8/4+12/16", 72 * 4 + 8 * 12),
    ],
)
def test_bits_of_every_format(workshop: Any, settings: str, widths: str, size: int) -> None:
    layer = summary_of(workshop.net(TINY % settings)).layers[1]
    assert (str(layer.widths), layer.trimmed_bits) == (widths, size)


def test_the_column_of_bits_names_biases_that_have_a_format_of_their_own(workshop: Any) -> None:
    lines = summary_lines(summary_of(workshop.net(TINY % f"{FIXED} bw_bias: 16 fl_bias: 3")))
    assert lines[2].endswith("bits in/weights+biases/out")
    assert lines[4].endswith("8/4+16/16")


def test_shared_parameters_count_once(workshop: Any) -> None:
    layer = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "x" top: "{0}" param {{ name: "w" }}'
        " inner_product_param {{ num_output: 3 bias_term: false }} }}\n"
    )
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }\n'
    summary = summary_of(workshop.net(text + layer.format("a") + layer.format("b")))
    assert [each.parameters for each in summary.layers] == [0, 12, 0]
    assert summary.macs == 24


def test_macs_are_for_the_whole_batch_where_it_cannot_be_divided(workshop: Any) -> None:
    text = """
        layer { name: "x" type: "Input" top: "x" top: "y"
                input_param { shape { dim: 5 dim: 4 } shape { dim: 3 dim: 4 } } }
        layer { name: "fc" type: "InnerProduct" bottom: "y" top: "fc" inner_product_param { num_output: 1 } }
    """
    summary = summary_of(workshop.net(text))
    assert "MACs: 12 for the whole batch" in summary_lines(summary)
    assert summary_as_json(summary)["macs_are_for_inputs"] == 5


@pytest.mark.parametrize(
    ("model", "given", "parameters", "macs"),
    [
        # conv1 24 x 24 x 20 x 25, conv2 8 x 8 x 50 x 500, ip1 800 x 500, ip2 500 x 10
        ("lenet", {"data": (1, 1, 28, 28)}, 431_080, 288_000 + 1_600_000 + 400_000 + 5_000),
        # He et al. 2016: 0.27 M parameters; 40.8 M multiplications, of which 0.26 M in two 1x1 shortcuts
        ("resnet20", {"data": (100, 3, 32, 32)}, 274_847, 40_813_184),
        # Iandola et al. 2016: 1.25 M parameters (4.8 MiB); 0.86 G multiplications for 227 x 227
        ("squeezenet_v1.0", {}, 1_248_424, 861_339_936),
        # Simonyan and Zisserman 2015: 138 M parameters; 15.5 G multiplications
        ("vgg16", {}, 138_357_544, 15_470_264_320),
    ],
)
def test_totals_are_the_published_ones(
    model: str, given: dict[str, tuple[int, ...]], parameters: int, macs: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no databases
    summary = summary_of(MODELS / model / "train_val.prototxt", **given)
    assert (summary.parameters, summary.macs) == (parameters, macs)


def test_totals_are_shown_as_in_papers(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    lines = summary_lines(summary_of(MODELS / "vgg16" / "train_val.prototxt"))
    assert "Parameters: 138,357,544 (138.36 M), 553.43 MB in 32 bits" in lines
    assert "MACs: 15,470,264,320 (15.47 G) for one of the 10 inputs of a batch" in lines
    digits = summary_lines(summary_of(MODELS / "digits" / "train_val.prototxt", data=(1, 1, 8, 8)))
    assert "Parameters: 12,706 (12.71 k), 50.8 kB in 32 bits" in digits
    assert lines[-1].startswith('Shapes of layer "data": data 10x3x224x224, label 10, from crop_size (')


# --- bit operations and activations

BRANCHES = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }
    layer { name: "a" type: "FcRistretto" bottom: "x" top: "a" inner_product_param { num_output: 10 }
            quantization_param { bw_layer_in: 8 bw_params: 4 bw_layer_out: 6 } }
    layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
    layer { name: "split" type: "Split" bottom: "a" top: "a1" top: "a2" }
    layer { name: "b" type: "FcRistretto" bottom: "a1" top: "b" inner_product_param { num_output: 3 }
            quantization_param { bw_layer_in: 5 bw_params: 2 bw_layer_out: 7 } }
    layer { name: "c" type: "%s" bottom: "a2" top: "c" inner_product_param { num_output: 2 } %s }
"""
NARROW = "quantization_param { bw_layer_in: 9 bw_params: 3 bw_layer_out: 7 }"


def test_bit_operations_are_macs_times_the_bits_of_weights_and_inputs(workshop: Any) -> None:
    layers = summary_of(workshop.net(BRANCHES % ("InnerProduct", ""))).layers
    found = {layer.name: layer.costs.bit_operations // 2 for layer in layers if layer.costs.bit_operations}
    assert found == {"a": 40 * 4 * 8, "b": 30 * 2 * 5, "c": 20 * 32 * 32}


@pytest.mark.parametrize(
    ("kind", "settings", "bits"),
    [
        # The ReLU writes a last, in float, so the widest reader counts.
        ("FcRistretto", NARROW, 9),
        ("InnerProduct", "", 32),
    ],
)
def test_a_blob_counts_once_with_the_bits_of_its_writer_or_its_widest_reader(
    workshop: Any, kind: str, settings: str, bits: int
) -> None:
    summary = summary_of(workshop.net(BRANCHES % (kind, settings)))
    found = {layer.name: layer.costs.activation_bits // 2 for layer in summary.layers if layer.costs.activation_bits}
    last = 7 if settings else 32
    assert found == {"a": 10 * bits, "b": 3 * 7, "c": 2 * last}
    assert summary.activation_bits == 10 * bits + 21 + 2 * last


def test_bit_operations_are_shown_on_request(workshop: Any) -> None:
    summary = summary_of(workshop.net(TINY % FIXED))
    shown = summary_lines(summary, bitops=True)
    assert shown[2].split("  ")[-3:] == ["bit operations", "activation bits", "bits in/weights/out"]
    # conv: 288 x 4 x 8 and fc: 320 x 32 x 32; conv, after the ReLU read by a float layer, and fc have 32 bits
    assert "Bit operations: 336,896 (336.90 k) for one of the 2 inputs of a batch" in shown
    assert "Activations: 168 bytes for one of the 2 inputs of a batch" in shown
    data = summary_as_json(summary, bitops=True)
    assert (data["bit_operations"], data["activation_bits"]) == (336_896, 42 * 32)
    assert [layer["bit_operations"] for layer in data["layers"]] == [0, 9_216, 0, 327_680]
    assert [layer["activation_bits"] for layer in data["layers"]] == [0, 1024, 0, 320]
    assert "bit_operations" not in summary_as_json(summary)
    assert not any("it operations" in line for line in summary_lines(summary))
