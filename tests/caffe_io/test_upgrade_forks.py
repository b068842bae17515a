"""Nets of forks of Ristretto, and of its versions before the first release, in the present form."""

from __future__ import annotations

import logging

import pytest

from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.caffe_io.upgrade import upgrade


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FIXED_POINT", "DYNAMIC_FIXED_POINT"),
        ("MINI_FLOATING_POINT", "MINIFLOAT"),
        ("POWER_2_WEIGHTS", "INTEGER_POWER_OF_2_WEIGHTS"),
    ],
)
def test_old_names_of_precisions(old: str, new: str, caplog: pytest.LogCaptureFixture) -> None:
    text = f'layer {{ name: "c" type: "ConvolutionRistretto" quantization_param {{ precision: {old} bw_params: 4 }} }}'
    with caplog.at_level(logging.INFO, logger="ristretto"):
        (layer,) = upgrade(parse(text, "NetParameter", "f").message, file="f").message.layer
    assert enum_name(layer.quantization_param, "precision") == new
    assert layer.quantization_param.bw_params == 4
    assert "Attempting to upgrade input file specified using old names of precisions: f" in caplog.messages


def test_is_quantized_makes_the_type_a_trimmed_one() -> None:
    text = """
    layer { name: "a" type: "InnerProduct" quantization_param { is_quantized: true } }
    layer { name: "b" type: "InnerProduct" quantization_param { is_quantized: false } }
    layer { name: "c" type: "InnerProduct" quantization_param { bw_params: 8 } }
    layer { name: "d" type: "Pooling" quantization_param { is_quantized: true } }
    layer { name: "e" type: "Sigmoid" quantization_param { is_quantized: true } }
    """
    layers = upgrade(parse(text, "NetParameter", "f").message).message.layer
    assert [layer.type for layer in layers] == [
        "FcRistretto",
        "InnerProduct",
        "InnerProduct",
        "PoolingRistretto",
        "Sigmoid",
    ]
