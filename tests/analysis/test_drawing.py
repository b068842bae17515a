"""Drawings as graphviz's text."""

from __future__ import annotations

from typing import Any

import pytest

from ristretto_cli.analysis.drawing import Direction, dot_text
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError


def drawn(workshop: Any, text: str, direction: Direction = Direction.LEFT_TO_RIGHT) -> list[str]:
    net = read_net(workshop.net(text))
    return [line.strip() for line in dot_text(net.message.name, net.message.layer, direction).splitlines()]


def label_of(workshop: Any, layer: str) -> str:
    lines = drawn(workshop, f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}')
    (line,) = (line for line in lines if line.startswith("layer0 [shape=box"))
    return line.partition("label=")[2].rstrip("];")


def test_a_net_is_boxes_and_octagons_with_edges_between_them(workshop: Any) -> None:
    text = """
        name: "n"
        layer { name: "d" type: "Data" top: "x" data_param { batch_size: 4 } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 8 kernel_size: 3 } }
        layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
    """
    assert drawn(workshop, text, Direction.TOP_TO_BOTTOM) == [
        'digraph "n" {',
        "rankdir=TB;",
        'node [style=filled, fontname="sans-serif"];',
        'layer0 [shape=box, fillcolor="#a9c4ee", label="d\\n(Data)"];',
        'blob0 [shape=octagon, fillcolor="#e8e8e8", label="x"];',
        'layer1 [shape=box, fillcolor="#f2a097", label="c\\n(Convolution)\\nkernel 3, stride 1, pad 0"];',
        'blob1 [shape=octagon, fillcolor="#e8e8e8", label="c"];',
        'layer2 [shape=box, fillcolor="#b7e4b0", label="r\\n(ReLU)"];',
        'layer0 -> blob0 [label="batch 4"];',
        "blob0 -> layer1;",
        'layer1 -> blob1 [label="8"];',
        "blob1 -> layer2;",
        "layer2 -> blob1;",
        "}",
    ]


@pytest.mark.parametrize(
    ("layer", "window"),
    [
        ('type: "Convolution" convolution_param { kernel_size: 3 stride: 2 pad: 1 }', "kernel 3, stride 2, pad 1"),
        (
            'type: "Convolution" convolution_param { kernel_h: 1 kernel_w: 7 pad_h: 0 pad_w: 3 group: 4 dilation: 2 }',
            "kernel 1x7, stride 1, pad 0x3, group 4, dilation 2",
        ),
        ('type: "Deconvolution" convolution_param { kernel_size: [2, 4] }', "kernel 2x4, stride 1, pad 0"),
    ],
)
def test_windows_are_reported(workshop: Any, layer: str, window: str) -> None:
    assert label_of(workshop, layer).split("\\n")[2] == window + '"'


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        ("pool: AVE kernel_size: 3 stride: 2", '"l\\n(Pooling AVE)\\nkernel 3, stride 2, pad 0"'),
        ("kernel_h: 3 kernel_w: 2 pad: 1", '"l\\n(Pooling MAX)\\nkernel 3x2, stride 1, pad 1"'),
        ("pool: AVE global_pooling: true", '"l\\n(Pooling AVE)\\nthe whole map"'),
    ],
)
def test_pooling_is_reported_with_its_method(workshop: Any, layer: str, label: str) -> None:
    assert label_of(workshop, f'type: "Pooling" pooling_param {{ {layer} }}') == label


def test_trimmed_layers_show_their_bits(workshop: Any) -> None:
    widths = "bw_layer_in: 8 bw_params: 4 bw_layer_out: 16"
    layer = f'type: "FcRistretto" inner_product_param {{ num_output: 1 }} quantization_param {{ {widths} }}'
    assert label_of(workshop, layer).endswith('\\n8/4/16 bits in/weights/out"')


def test_names_cannot_end_the_string_or_the_line(workshop: Any) -> None:
    layer = r'layer { name: "a\"];\\n\n\033b" type: "X" }'
    assert r'label="a\"];\\nb\n(X)"];' in drawn(workshop, layer)[3]


def test_types_need_not_be_known(workshop: Any) -> None:
    assert label_of(workshop, 'type: "MyOwn"') == '"l\\n(MyOwn)"'


def test_widths_that_no_format_has_are_refused(workshop: Any) -> None:
    with pytest.raises(RistrettoError, match=r'^layer "l" \(FcRistretto\): a width of 0 bits is out of range'):
        label_of(workshop, 'type: "FcRistretto" quantization_param { bw_params: 0 }')
