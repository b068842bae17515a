"""Unsigned formats for activations that are never negative, from `--unsigned` to the net that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import Role
from ristretto_cli.net.build import NetState
from ristretto_cli.quantize.header import weights_of
from ristretto_cli.quantize.pipeline import quantize
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.scoring.calibrate import Probe, measure_ranges
from ristretto_cli.scoring.net_files import score_file

from ..conftest import NET

ALL = {"conv_params": 8, "fc_params": 8, "layer": 8}
UNSIGNED = {"unsigned": "true"}
RELU = 'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }'
RECTIFIED = NET.replace('layer { name: "fc"', RELU + ' layer { name: "fc"')
IN, OUT = Role.LAYER_IN, Role.LAYER_OUT


def fields(outcome: QuantizationResult, name: str) -> dict[str, int]:
    (layer,) = [each for each in outcome.net_file.message.layer if each.name == name]
    return {field.name: value for field, value in layer.quantization_param.ListFields()}


def test_pixels_and_rectified_values_get_a_bit_more(two_classes: Any) -> None:
    made = two_classes()
    signed = quantize(made.job(text=RECTIFIED, bw=ALL))
    unsigned = quantize(made.job(text=RECTIFIED, bw=ALL, mode_options=UNSIGNED))
    for name, role in (("conv", "layer_in"), ("conv", "layer_out"), ("fc", "layer_in")):
        assert fields(unsigned, name)[f"fl_{role}"] == fields(signed, name)[f"fl_{role}"] + 1
        assert fields(unsigned, name)[f"unsigned_{role}"] is True
    assert "unsigned_layer_out" not in fields(unsigned, "fc")
    assert fields(unsigned, "fc")["fl_layer_out"] == fields(signed, "fc")["fl_layer_out"]


def test_what_nothing_rectifies_stays_signed(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(bw=ALL, mode_options=UNSIGNED))
    assert "unsigned_layer_in" in fields(outcome, "conv")
    assert "unsigned_layer_out" not in fields(outcome, "conv")
    assert "unsigned_layer_in" not in fields(outcome, "fc")


def test_pixels_with_negative_values_stay_signed(two_classes: Any) -> None:
    text = RECTIFIED.replace("scale: 0.00390625", "scale: 0.00390625 mean_value: 60")
    outcome = quantize(two_classes().job(text=text, bw=ALL, mode_options=UNSIGNED))
    assert "unsigned_layer_in" not in fields(outcome, "conv")
    assert "unsigned_layer_in" in fields(outcome, "fc")


def test_a_net_without_such_values_is_warned_of(two_classes: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = NET.replace("scale: 0.00390625", "scale: 0.00390625 mean_value: 60")
    quantize(two_classes().job(text=text, bw=ALL, mode_options=UNSIGNED))
    assert "--unsigned has no effect: the input and the output of each layer may be negative." in caplog.text


@pytest.mark.parametrize(("bits", "unsigned"), [(1, True), (16, True), (32, False)])
def test_a_width_without_loss_needs_no_unsigned_format(two_classes: Any, bits: int, unsigned: bool) -> None:
    outcome = quantize(two_classes().job(text=RECTIFIED, bw={**ALL, "layer": bits}, mode_options=UNSIGNED))
    assert ("unsigned_layer_in" in fields(outcome, "conv")) is unsigned


@pytest.mark.parametrize("mode", ["dynamic_fixed_point", "integer_power_of_2_weights", "static_fixed_point"])
def test_without_the_flag_no_field_of_ours_is_written(two_classes: Any, mode: str) -> None:
    outcome = quantize(two_classes().job(mode, text=RECTIFIED))
    outcome.write()
    assert "unsigned" not in Path("quantized.prototxt").read_text()


def test_the_net_that_is_written_scores_as_the_search_did_and_says_who_reads_it(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(text=RECTIFIED, bw={"layer": 2}, mode_options=UNSIGNED))
    outcome.write()
    assert outcome.search.combined is not None
    assert Path("quantized.prototxt").read_text().splitlines()[1:3] == [
        "# Weights: net.caffemodel",
        "# Some activations are unsigned, unsigned_layer_in and unsigned_layer_out, which the original cannot read.",
    ]
    scores = score_file("quantized.prototxt", weights_of("quantized.prototxt"), 2, state=NetState())
    assert {output.blob: output.score for output in scores.outputs}["accuracy"] == outcome.search.combined.score
    assert read_net("quantized.prototxt").message == outcome.net_file.message


def test_other_precisions_have_no_unsigned_format(two_classes: Any) -> None:
    outcome = quantize(two_classes().job("minifloat", bw={"net": 8}))
    outcome.write()
    path = Path("quantized.prototxt")
    path.write_text(path.read_text().replace("precision: MINIFLOAT", "precision: MINIFLOAT unsigned_layer_out: true"))
    with pytest.raises(RistrettoError, match="unsigned_layer_out: activations cannot be unsigned with precision MINI"):
        score_file(str(path), "net.caffemodel", 1, state=NetState())


# --- what is never negative

DATA = 'layer { name: "d" type: "Data" top: "data" data_param { source: "db" backend: LMDB batch_size: 1 } }'
CONVOLUTION = """
    layer { name: "%s" type: "Convolution" bottom: "%s" top: "%s"
            convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
"""
LAYER = 'layer { name: "%s" type: "%s" bottom: "%s" top: "%s" %s }\n'
CONV = CONVOLUTION % ("conv", "data", "conv")
LAST = CONVOLUTION % ("last", "x", "last")
RECTIFY = LAYER % ("relu", "ReLU", "conv", "y", "")
KERNEL = [[[[1]], [[-1]]], [[[-1]], [[1]]]]
POOL = "pooling_param { kernel_size: 3 stride: 1 pad: 1 pool: %s }"
SUM = 'layer { name: "e" type: "Eltwise" bottom: "y" bottom: "data" top: "x" eltwise_param { %s } }'


def signs(workshop: Any, layers: str, *, negative: bool = False) -> dict[str, frozenset[Role]]:
    image = np.array([[[3, 1], [0, 5]], [[2, 7], [1, 0]]], np.float32)
    workshop.database("db", (-image if negative else image)[np.newaxis])
    norm = [np.zeros(2), np.ones(2), np.ones(1)]
    weights = {"conv": [KERNEL], "last": [KERNEL], "norm": norm, "prelu": [[0.1, 0.1]]}
    net = workshop.load(DATA + CONV + layers + LAST, weights)
    names = frozenset(["conv", "last"])
    ranges = measure_ranges(net, names, 1, probe=Probe(), rng=np.random.default_rng(0))
    return {name: ranges[name].never_negative for name in names}


@pytest.mark.parametrize(
    "layers",
    [
        LAYER % ("relu", "ReLU", "conv", "x", ""),
        RECTIFY + LAYER % ("pool", "Pooling", "y", "x", POOL % "MAX"),
        RECTIFY + LAYER % ("pool", "Pooling", "y", "x", POOL % "AVE"),
        RECTIFY + LAYER % ("drop", "Dropout", "y", "x", ""),
        RECTIFY + SUM % "",
        RECTIFY + SUM % "coeff: 0.5 coeff: 2",
        RECTIFY + SUM % "operation: MAX",
        RECTIFY + LAYER % ("pool", "Pooling", "data", "x", POOL % "AVE"),
        RECTIFY + LAYER % ("lrn", "LRN", "y", "x", ""),
    ],
)
def test_what_only_non_negative_values_are_made_of_is_never_negative(workshop: Any, layers: str) -> None:
    assert signs(workshop, layers) == {"conv": {IN, OUT}, "last": {IN}}


MAX = "pooling_param { kernel_size: 2 pool: MAX }"


@pytest.mark.parametrize(
    ("pooling", "unsigned"), [(MAX, True), (MAX + ' top: "mask"', False), (MAX.replace("MAX", "AVE"), False)]
)
def test_a_maximum_may_be_taken_before_values_are_rectified(workshop: Any, pooling: str, unsigned: bool) -> None:
    layers = LAYER % ("pool", "Pooling", "conv", "p", pooling) + LAYER % ("relu", "ReLU", "p", "x", "")
    assert signs(workshop, layers) == {"conv": {IN, OUT} if unsigned else {IN}, "last": {IN}}


def test_a_concatenation_is_never_negative_if_its_parts_are(workshop: Any) -> None:
    concat = 'layer { name: "c" type: "Concat" bottom: "y" bottom: "data" top: "z" }'
    ranges = signs(workshop, RECTIFY + concat + LAYER % ("slice", "Slice", "z", "x", 'top: "w"'))
    assert ranges["last"] == {IN}


@pytest.mark.parametrize(
    "layers",
    [
        LAYER % ("norm", "BatchNorm", "conv", "x", ""),
        LAYER % ("prelu", "PReLU", "conv", "x", ""),
        LAYER % ("relu", "ReLU", "conv", "x", "relu_param { negative_slope: 0.1 }"),
        LAYER % ("pool", "Pooling", "conv", "x", POOL % "MAX"),
    ],
)
def test_what_may_be_negative_is_signed(workshop: Any, layers: str) -> None:
    assert signs(workshop, layers) == {"conv": {IN}, "last": frozenset()}


@pytest.mark.parametrize("setting", ["coeff: 1 coeff: -1", "coeff: -0.5 coeff: 2"])
def test_a_difference_is_signed(workshop: Any, setting: str) -> None:
    assert signs(workshop, RECTIFY + SUM % setting)["last"] == frozenset()


def test_an_output_that_another_layer_also_reads_is_signed(workshop: Any) -> None:
    layers = LAYER % ("relu", "ReLU", "conv", "x", "") + LAYER % ("tanh", "TanH", "conv", "t", "")
    assert signs(workshop, layers) == {"conv": {IN}, "last": {IN}}


def test_data_that_are_negative_are_signed_and_so_is_what_is_made_of_them(workshop: Any) -> None:
    assert signs(workshop, RECTIFY + SUM % "", negative=True) == {"conv": {OUT}, "last": frozenset()}
