"""One format for each wire: `--same_formats`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.formats.number_format import Ranges, Role, Sample
from ristretto_cli.net.build import NetState, build
from ristretto_cli.quantize.pipeline import quantize
from ristretto_cli.quantize.trimmable import Trimmable, family_of, trimmable_layers
from ristretto_cli.quantize.wires import wires, with_ranges_of_wires
from ristretto_cli.sources.open import DataLayers

from ..conftest import NET

DATA = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }\n'
CONVOLUTION = """
    layer { name: "%s" type: "Convolution" bottom: "%s" top: "%s"
            convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
"""
LAYER = 'layer { name: "%s" type: "%s" bottom: "%s" top: "%s" %s }\n'
FIRST, LAST = CONVOLUTION % ("a", "data", "a"), CONVOLUTION % ("z", "x", "z")
BW = {"conv_params": 8, "fc_params": 8}
IN, OUT = Role.LAYER_IN, Role.LAYER_OUT


def layers_of(workshop: Any, text: str) -> tuple[Any, list[Trimmable]]:
    net = build(read_net(workshop.net(text)), NetState(), DataLayers())
    layers = trimmable_layers(net, legacy=False)
    return net, [Trimmable(layer, family_of(layer), Ranges(1.0, 1.0, 1.0)) for layer in layers]


def found(workshop: Any, middle: str) -> list[list[str]]:
    """The wires with more than one end, as `layer.in` and `layer.out`."""
    net, layers = layers_of(workshop, DATA + FIRST + middle + LAST)
    named = [[f"{name}.{role.value.removeprefix('layer_')}" for name, role in ends] for ends in wires(net, layers)]
    return [ends for ends in named if len(ends) > 1]


FLATTEN = LAYER % ("f", "Flatten", "a", "f", "")
RESHAPE = LAYER % ("r", "Reshape", "f", "x", "reshape_param { shape { dim: 0 dim: 2 dim: 4 dim: 4 } }")
POOL = "pooling_param { kernel_size: 2 stride: 2 pool: %s }"


@pytest.mark.parametrize(
    "middle",
    [
        LAYER % ("relu", "ReLU", "a", "x", ""),
        LAYER % ("relu", "ReLU", "a", "a", "") + LAYER % ("pool", "Pooling", "a", "x", POOL % "MAX"),
        LAYER % ("pool", "Pooling", "a", "x", POOL % "AVE"),
        LAYER % ("drop", "Dropout", "a", "a", "") + FLATTEN + RESHAPE,
        LAYER % ("split", "Split", "a", "x", 'top: "other"'),
        LAYER % ("shuffle", "ShuffleChannel", "a", "x", "shuffle_channel_param { group: 2 }"),
    ],
)
def test_a_wire_goes_through_layers_that_keep_the_format(workshop: Any, middle: str) -> None:
    assert found(workshop, middle) == [["a.out", "z.in"]]


@pytest.mark.parametrize(
    "middle",
    [
        LAYER % ("norm", "BatchNorm", "a", "x", ""),
        LAYER % ("prelu", "PReLU", "a", "x", ""),
        LAYER % ("relu", "ReLU", "a", "x", "relu_param { negative_slope: 0.1 }"),
        LAYER % ("tanh", "TanH", "a", "x", ""),
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "data" top: "x" }',
    ],
)
def test_a_wire_ends_where_other_values_are_computed(workshop: Any, middle: str) -> None:
    assert ["a.out", "z.in"] not in found(workshop, middle)


def test_all_readers_of_a_blob_are_on_its_wire(workshop: Any) -> None:
    second = CONVOLUTION % ("b", "a", "b") + LAYER % ("relu", "ReLU", "a", "x", "")
    assert found(workshop, second) == [["a.out", "b.in", "z.in"]]


def test_a_blob_that_is_written_again_is_another_wire(workshop: Any) -> None:
    in_place = LAYER % ("tanh", "TanH", "a", "a", "")
    middle = in_place + CONVOLUTION % ("b", "a", "b") + LAYER % ("split", "Split", "a", "x", "")
    assert found(workshop, middle) == [["b.in", "z.in"]]


def test_the_bottoms_of_a_concat_and_its_readers_have_one_format(workshop: Any) -> None:
    middle = CONVOLUTION % ("b", "data", "b") + 'layer { name: "c" type: "Concat" bottom: "a" bottom: "b" top: "x" }'
    assert found(workshop, middle) == [["a.in", "b.in"], ["a.out", "b.out", "z.in"]]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("", ["a.out", "b.out"]), ("eltwise_param { operation: MAX }", ["a.out", "b.out", "z.in"])],
)
def test_the_bottoms_of_an_eltwise_have_one_format(workshop: Any, setting: str, expected: list[str]) -> None:
    eltwise = f'layer {{ name: "e" type: "Eltwise" bottom: "a" bottom: "b" top: "x" {setting} }}'
    assert found(workshop, CONVOLUTION % ("b", "data", "b") + eltwise)[1] == expected


def test_the_ends_of_a_wire_have_its_largest_range_all_its_values_and_one_sign(workshop: Any) -> None:
    net, layers = layers_of(workshop, DATA + FIRST + LAYER % ("relu", "ReLU", "a", "x", "") + LAST)

    def sample(*values: float) -> Sample:
        return Sample(np.array(values, np.float32), np.ones(len(values), np.float32))

    first = Ranges(1.0, 5.0, 1.0, samples={IN: sample(1), OUT: sample(4, 5)}, never_negative=frozenset([IN, OUT]))
    last = Ranges(3.0, 9.0, 1.0, samples={IN: sample(3), OUT: sample(9)}, never_negative=frozenset())
    ranges = [Trimmable(each.layer, "CONV", r) for each, r in zip(layers, (first, last), strict=True)]
    a, z = (each.ranges for each in with_ranges_of_wires(net, ranges))
    assert (a.layer_in, a.layer_out, z.layer_in, z.layer_out) == (1, 5, 5, 9)
    assert a.samples[OUT].values.tolist() == z.samples[IN].values.tolist() == [4, 5, 3]
    assert a.samples[IN].values.tolist() == [1]
    assert a.never_negative == {IN}


@pytest.mark.parametrize("unsigned", ["false", "true"])
@pytest.mark.parametrize("fl_layer", ["original", "range", "mse", "auto"])
def test_written_nets_have_one_format_on_each_wire(two_classes: Any, unsigned: str, fl_layer: str) -> None:
    more = """
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "y" }
        layer { name: "pool" type: "Pooling" bottom: "y" top: "p" pooling_param { pool: AVE kernel_size: 1 } }
        layer { name: "fc" """
    text = NET.replace('layer { name: "fc" ', more).replace('bottom: "conv" top: "fc"', 'bottom: "p" top: "fc"')
    options = {"same_formats": "true", "unsigned": unsigned, "fl_layer": fl_layer}
    outcome = quantize(two_classes().job(text=text, bw={**BW, "layer": 6}, mode_options=options))
    conv, fc = (layer.quantization_param for layer in outcome.net_file.message.layer if layer.name in ("conv", "fc"))
    assert (conv.bw_layer_out, conv.fl_layer_out) == (fc.bw_layer_in, fc.fl_layer_in)
    assert conv.unsigned_layer_out == fc.unsigned_layer_in == (unsigned == "true")
    assert outcome.as_json()["same_formats"] is True


@pytest.mark.parametrize(("between", "warned"), [("TanH", True), ("ReLU", False)])
def test_a_net_whose_wires_have_one_end_each_is_warned_of(
    two_classes: Any, caplog: pytest.LogCaptureFixture, between: str, warned: bool
) -> None:
    layer = f'layer {{ name: "f" type: "{between}" bottom: "conv" top: "conv" }}'
    text = NET.replace('layer { name: "fc"', f'{layer} layer {{ name: "fc"')
    quantize(two_classes().job(text=text, bw={**BW, "layer": 6}, mode_options={"same_formats": "true"}))
    assert ("--same_formats has no effect: no two layers" in caplog.text) is warned
