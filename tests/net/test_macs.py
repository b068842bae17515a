"""Multiply-accumulates, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ristretto_cli.net.macs import macs_of

INPUT = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }\n'


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        # outputs x kernel x channels of a group
        ('type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 }', 2 * 8 * 4 * 4 * 9 * 4),
        ('type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 pad: 1 }', 2 * 8 * 6 * 6 * 9 * 4),
        ('type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 group: 4 }', 2 * 8 * 4 * 4 * 9),
        ('type: "Convolution" convolution_param { num_output: 8 kernel_size: 1 axis: 2 }', 2 * 4 * 8 * 6 * 6),
        ('type: "ConvolutionRistretto" convolution_param { num_output: 1 kernel_size: 6 }', 2 * 36 * 4),
        ('type: "ConvolutionDepthwise" convolution_param { num_output: 4 kernel_size: 3 }', 2 * 4 * 4 * 4 * 9),
        # inputs x kernel x maps of a group
        ('type: "Deconvolution" convolution_param { num_output: 5 kernel_size: 2 stride: 2 }', 2 * 4 * 36 * 4 * 5),
        ('type: "InnerProduct" inner_product_param { num_output: 7 }', 2 * 144 * 7),
        ('type: "InnerProduct" inner_product_param { num_output: 7 transpose: true }', 2 * 144 * 7),
        # element by element, or no parameters: nothing
        ('type: "Pooling" pooling_param { pool: AVE kernel_size: 2 }', 0),
        ('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 }', 0),
        ('type: "LRN"', 0),
        ('type: "Scale"', 0),
        ('type: "BatchNorm"', 0),
    ],
)
def test_products_with_parameters_are_counted(workshop: Any, layer: str, macs: int) -> None:
    net = workshop.load(INPUT + f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}')
    assert [macs_of(each) for each in net.layers] == [0, macs]


def test_each_bottom_of_a_convolution_counts(workshop: Any) -> None:
    net = workshop.load(
        INPUT + 'layer { name: "s" type: "Split" bottom: "x" top: "a" top: "b" }'
        'layer { name: "c" type: "Convolution" bottom: "a" bottom: "b" top: "c" top: "d"'
        " convolution_param { num_output: 1 kernel_size: 6 } }"
    )
    assert macs_of(net.layers[2]) == 2 * (2 * 36 * 4)
