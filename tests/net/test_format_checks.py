"""Warnings about number formats that cannot be meant."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.net.format_checks import warn_of_formats

NET = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 2 dim: 3 dim: 3 }} }} }}
layer {{ name: "c" type: "{type}" bottom: "x" top: "c"
  convolution_param {{ num_output: 4 kernel_size: 1 bias_term: false }} {quantization} }}
"""
WEIGHTS = np.linspace(-0.9, 0.9, 8, dtype=np.float32)


def warnings(nets: Any, caplog: pytest.LogCaptureFixture, quantization: str, type: str = "ConvolutionRistretto") -> Any:
    """The warnings about a convolution with weights up to 0.9, without the place."""
    text = f"quantization_param {{ {quantization} }}" if quantization else ""
    net = nets.build(NET.format(type=type, quantization=text))
    net = replace(net, weights={"c/0": WEIGHTS.reshape(4, 2, 1, 1)})
    with caplog.at_level(logging.WARNING, logger="ristretto"):
        warn_of_formats(net)
    return [message.split(": ", 1)[1] for message in caplog.messages]


@pytest.mark.parametrize(
    "quantization",
    [
        "bw_params: 8 fl_params: 7",
        "bw_params: 8 fl_params: 8",  # 0.5 is the largest number, but weights up to 0.9 are not far above
        "bw_params: 2 fl_params: 1",
        "bw_params: 1 fl_params: 0",
        "bw_params: 3 fl_params: 9 trim_params: false",
        "precision: MINIFLOAT mant_bits: 3 exp_bits: 4",
        "precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: -1",
        "",
    ],
)
def test_plausible_formats_are_not_mentioned(nets: Any, caplog: pytest.LogCaptureFixture, quantization: str) -> None:
    assert warnings(nets, caplog, quantization) == []


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (
            "bw_params: 3 fl_params: 9",
            'layer "c": 100 % of the weights saturate: they are up to 0.9, and the largest number of their format is '
            "0.00781. fl_params 2 would fit.",
        ),
        (
            "bw_params: 8 fl_params: -3",
            'layer "c": all weights become 0: they are up to 0.9, and the step of their format is 8. fl_params 7 would '
            "fit.",
        ),
        (
            "bw_params: 8 fl_params: -2000",
            'layer "c": all weights become 0: they are up to 0.9, and the step of their format is 2^2000. fl_params 7 '
            "would fit.",
        ),
        (
            "precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -20 exp_max: -10",
            'layer "c": 100 % of the weights saturate: they are up to 0.9, and the largest number of their format is '
            "0.000977.",
        ),
        (
            "precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -1 exp_max: -8",
            'layer "c": exp_min -1 is larger than exp_max -8, so every weight becomes 2^-1 or -2^-1',
        ),
        (
            "bw_params: 8 fl_params: 7 bw_layer_in: 8 fl_layer_in: 60",
            'layer "c": bw_layer_in 8 with fl_layer_in 60 represents no number above 1.1e-16',
        ),
        (
            "bw_params: 8 fl_params: 7 bw_layer_out: 8 fl_layer_out: -50",
            'layer "c": fl_layer_out -50 rounds all numbers to multiples of 2^50',
        ),
    ],
)
def test_formats_that_ruin_a_layer(
    nets: Any, caplog: pytest.LogCaptureFixture, quantization: str, expected: str
) -> None:
    assert warnings(nets, caplog, quantization) == [expected]


def test_settings_without_effect(nets: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(nets, caplog, "bw_params: 8 fl_params: 7", "Convolution") == [
        'layer "c" (Convolution): quantization_param has no effect on this type. Did you mean ConvolutionRistretto?'
    ]


def test_the_place_comes_first(nets: Any, caplog: pytest.LogCaptureFixture) -> None:
    warnings(nets, caplog, "bw_params: 3 fl_params: 9")
    assert caplog.messages[0].partition(": layer")[0].endswith("net.prototxt:2")
