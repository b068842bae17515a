"""The layers that are trimmed, and the settings that are written into the net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.errors import RistrettoErrors
from ristretto_cli.formats.number_format import MODES, Ranges, Role
from ristretto_cli.quantize.rewrite import apply_bit_widths
from ristretto_cli.quantize.trimmable import Trimmable, trimmable_layers

INPUT = 'layer { name: "i" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }'
CONV = """
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" %s
            convolution_param { num_output: 2 kernel_size: 1 } }
"""
FC = """
    layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 2 } }
"""
# input below 2, output below 8, weights below 1: integer lengths 1, 3 and 1
RANGES = Ranges(layer_in=1.5, layer_out=6.0, params=0.75)
WIDTHS = {Role.LAYER_IN: 8, Role.LAYER_OUT: 8, Role.PARAMS: 4}


def plan(workshop: Any, text: str, widths: Any, *, mode: str = "dynamic_fixed_point", **settings: Any) -> Any:
    """The trimmed message of a net whose layers all have RANGES."""
    legacy = settings.get("legacy", False)
    families = {"Convolution": "CONV", "ConvolutionDepthwise": "CONV", "DepthwiseConvolution": "CONV"}
    layers = [
        Trimmable(layer, families.get(layer.type, "FC"), RANGES)
        for layer in trimmable_layers(workshop.load(text), legacy=legacy)
    ]
    net_file = read_net(workshop.net(text))
    before = to_text(net_file.message)
    message = apply_bit_widths(net_file, layers, widths, MODES.get(mode), legacy=legacy).message
    assert to_text(net_file.message) == before  # the net that was read stays as it is
    return message


def fields(message: Message) -> dict[str, Any]:
    return {field.name: value for field, value in message.quantization_param.ListFields()}


def test_each_role_gets_its_width_and_fractional_length(workshop: Any) -> None:
    _, conv, fc = plan(workshop, INPUT + CONV % "" + FC, {"conv": WIDTHS, "fc": WIDTHS}).layer
    expected = {
        "bw_layer_in": 8,
        "fl_layer_in": 7,
        "bw_layer_out": 8,
        "fl_layer_out": 5,
        "bw_params": 4,
        "fl_params": 3,
    }
    assert (conv.type, fields(conv)) == ("ConvolutionRistretto", expected)
    assert (fc.type, fields(fc)) == ("FcRistretto", expected)


def test_only_the_families_and_roles_of_the_widths_are_trimmed(workshop: Any) -> None:
    _, conv, fc = plan(workshop, INPUT + CONV % "" + FC, {"conv": {Role.PARAMS: 2}}).layer
    left = {"trim_layer_in": False, "trim_layer_out": False}
    assert (conv.type, fields(conv)) == ("ConvolutionRistretto", {"bw_params": 2, "fl_params": 1, **left})
    assert (fc.type, fc.HasField("quantization_param")) == ("InnerProduct", False)


def test_a_width_of_32_bits_keeps_every_value_but_in_legacy_the_saturating_range(workshop: Any) -> None:
    text, widths = INPUT + CONV % "", {"conv": {Role.LAYER_OUT: 32}}
    # 4 integer bits reach to 6, and 4 more are headroom
    assert fields(plan(workshop, text, widths).layer[1])["fl_layer_out"] == 32 - 8
    assert fields(plan(workshop, text, widths, legacy=True).layer[1])["fl_layer_out"] == 32 - 3


def test_a_layer_is_trimmed_in_every_phase_that_it_stands_in(workshop: Any) -> None:
    both = CONV % "include { phase: TEST }" + CONV % "include { phase: TRAIN }"
    message = plan(workshop, INPUT + both, {"conv": WIDTHS})
    assert [layer.type for layer in message.layer] == ["Input", *["ConvolutionRistretto"] * 2]
    assert [layer.include[0].phase for layer in message.layer[1:]] == [1, 0]
    assert fields(message.layer[1]) == fields(message.layer[2])


def test_a_layer_of_that_name_but_another_type_is_left_unchanged(workshop: Any) -> None:
    other = 'layer { name: "conv" type: "Power" bottom: "data" top: "conv" include { phase: TRAIN } }'
    message = plan(workshop, INPUT + CONV % "include { phase: TEST }" + other, {"conv": WIDTHS})
    assert [layer.type for layer in message.layer] == ["Input", "ConvolutionRistretto", "Power"]


@pytest.mark.parametrize("kind", ["ConvolutionDepthwise", "DepthwiseConvolution"])
def test_a_depthwise_layer_gets_its_group_written(workshop: Any, kind: str) -> None:
    text = INPUT + (CONV % "").replace('"Convolution"', f'"{kind}"').replace("num_output: 2", "num_output: 3")
    (_, conv) = plan(workshop, text, {"conv": WIDTHS}).layer
    assert (conv.type, conv.convolution_param.group) == ("ConvolutionRistretto", 3)


def test_a_plain_convolution_gets_no_group_written(workshop: Any) -> None:
    (_, conv) = plan(workshop, INPUT + CONV % "", {"conv": WIDTHS}).layer
    assert not conv.convolution_param.HasField("group")


def test_the_files_state_is_cleared_and_the_rest_is_kept(workshop: Any) -> None:
    head = 'name: "tiny" debug_info: true state { phase: TEST level: 3 }'
    message = plan(workshop, head + INPUT + CONV % "param { lr_mult: 2 }", {"conv": WIDTHS})
    assert not message.HasField("state")
    assert (message.name, message.debug_info) == ("tiny", True)
    assert message.layer[1].param[0].lr_mult == 2


def test_minifloat_shares_one_format_that_covers_all_layers(workshop: Any) -> None:
    text = INPUT + CONV % "" + FC
    net = workshop.load(text)
    conv, fc = trimmable_layers(net, legacy=False)
    layers = [
        Trimmable(conv, "CONV", Ranges(1.0, 2.0, 0.5)),
        Trimmable(fc, "FC", Ranges(1.0, 1e6, 0.5)),  # 2^19.9: 6 bits of exponent
    ]
    all_roles = dict.fromkeys(Role, 8)
    message = apply_bit_widths(
        read_net("net.prototxt"),
        layers,
        {"conv": all_roles, "fc": all_roles},
        MODES.get("minifloat"),
        legacy=False,
    ).message
    expected = {"precision": 1, "mant_bits": 1, "exp_bits": 6}
    assert [fields(layer) for layer in message.layer[1:]] == [expected, expected]


def test_power_of_two_weights_go_with_8_bit_activations(workshop: Any) -> None:
    widths = {"conv": dict.fromkeys(Role, 4)}
    (_, conv) = plan(workshop, INPUT + CONV % "", widths, mode="integer_power_of_2_weights").layer
    assert fields(conv) == {
        "precision": 2,
        "exp_min": -8,
        "exp_max": -1,
        "bw_layer_in": 8,
        "fl_layer_in": 7,
        "bw_layer_out": 8,
        "fl_layer_out": 5,
    }


# --- what can be trimmed


DEPTHWISE = """
    layer { name: "dw" type: "ConvolutionDepthwise" bottom: "data" top: "dw"
            convolution_param { num_output: 3 kernel_size: 1 } }
"""
OTHERS = """
    layer { name: "deconv" type: "Deconvolution" bottom: "data" top: "deconv"
            convolution_param { num_output: 1 kernel_size: 1 } }
    layer { name: "lrn" type: "LRN" bottom: "data" top: "lrn" }
"""


@pytest.mark.parametrize(("legacy", "names"), [(False, ["dw", "conv", "fc"]), (True, ["conv", "fc"])])
def test_convolutions_and_inner_products_can_be_trimmed(workshop: Any, legacy: bool, names: list[str]) -> None:
    net = workshop.load(INPUT + DEPTHWISE + CONV % "" + FC + OTHERS)
    assert [layer.name for layer in trimmable_layers(net, legacy=legacy)] == names


def test_every_layer_that_is_trimmed_already_is_reported(workshop: Any) -> None:
    text = INPUT + (CONV % "" + FC).replace('"Convolution"', '"ConvolutionRistretto"')
    net = workshop.load(text.replace('"InnerProduct"', '"FcRistretto"'))
    with pytest.raises(RistrettoErrors) as refused:
        trimmable_layers(net, legacy=True)
    assert str(refused.value).splitlines() == [
        'net.prototxt:2: layer "conv" is already quantized (ConvolutionRistretto). Use the float net as --model.',
        'net.prototxt:5: layer "fc" is already quantized (FcRistretto). Use the float net as --model.',
    ]


def test_data_sources_are_written_as_they_were(workshop: Any, tmp_path: Path) -> None:
    workshop.database("db", [[[[1]]]])
    data = 'layer { name: "d" type: "Data" top: "data" data_param { source: "./db" backend: LMDB batch_size: 1 } }'
    message = plan(workshop, data + CONV % "", {"conv": WIDTHS})
    assert message.layer[0].data_param.source == "./db"
