"""Parameters as layers use them: in which formats, and with which random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.net.param_formats import ParamFormat, ParamQuantizer, param_formats, params_in_use
from ristretto_cli.scoring.engine import record

INPUT = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 5 dim: 5 } } }'
LAYER = """
    layer {{ name: "{name}" type: "{type}" bottom: "x" top: "{name}" {shared}
             convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 weight_filler {{ type: "gaussian" }}
                                  bias_filler {{ type: "gaussian" }} }}
             quantization_param {{ {quantization} }} }}
"""
STOCHASTIC = "bw_params: 8 fl_params: 4 rounding_scheme: STOCHASTIC"


def layer(quantization: str, name: str = "c", type: str = "ConvolutionRistretto", shared: str = "") -> str:
    return LAYER.format(name=name, type=type, quantization=quantization, shared=shared)


@pytest.mark.parametrize(
    ("quantization", "formats"),
    [
        ("bw_params: 5 fl_params: 7", [Fixed(5, 7), Fixed(5, 7)]),
        ("precision: MINIFLOAT mant_bits: 3 exp_bits: 4", [Minifloat(3, 4), Minifloat(3, 4)]),
        ("precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -6 exp_max: -1", [PowerOfTwo(-6, -1), None]),
        ("bw_params: 5 fl_params: 7 trim_params: false", [None, None]),
        ("bw_params: 5 fl_params: 7 bw_bias: 16 fl_bias: 12", [Fixed(5, 7), Fixed(16, 12)]),
        ("bw_params: 5 fl_params: 7 bw_params_bias: 4 fl_params_bias: 3", [Fixed(5, 7), Fixed(4, 3)]),
    ],
)
@pytest.mark.parametrize("type_", ["ConvolutionRistretto", "DeconvolutionRistretto"])
def test_the_weights_and_the_bias_have_the_formats_of_the_layer(
    quantization: str, formats: list[Any], type_: str, workshop: Any
) -> None:
    net = workshop.load(INPUT + layer(quantization, type=type_))
    found = param_formats(net.layers[1])
    assert found == tuple(each and ParamFormat(each, Rounding.NEAREST) for each in formats)


def test_a_plain_layer_trims_nothing_whatever_it_says(workshop: Any) -> None:
    net = workshop.load(INPUT + layer("bw_params: 5 fl_params: 7", type="Convolution"))
    assert param_formats(net.layers[1]) == (None, None)


def test_in_training_the_rounding_is_that_of_training(workshop: Any) -> None:
    for phase, expected in [(TEST, Rounding.NEAREST), (TRAIN, Rounding.STOCHASTIC)]:
        net = workshop.load(INPUT + layer("bw_params: 8"), phase=phase)
        assert {each and each.rounding for each in param_formats(net.layers[1])} == {expected}
    assert {each and each.rounding for each in param_formats(net.layers[1], Rounding.NEAREST)} == {Rounding.NEAREST}


@pytest.mark.parametrize(
    "text",
    [
        layer("bw_params: 4 fl_params: 3") + layer("precision: MINIFLOAT mant_bits: 2 exp_bits: 4", "d"),
        layer("precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: -1"),
        # Stochastic rounding of activations draws random numbers between those of the two layers' weights.
        layer(STOCHASTIC) + layer(STOCHASTIC, "d"),
        layer("bw_params: 4 fl_params: 3", shared="phase: TRAIN"),
        layer("bw_params: 4 fl_params: 3 bw_bias: 16 fl_bias: 12"),
        layer("bw_params: 4 fl_params: 3", shared='param { name: "w" }')
        + layer("bw_params: 2 fl_params: 1", "d", shared='param { name: "w" }'),
        layer(STOCHASTIC, shared='param { name: "w" }') + layer(STOCHASTIC, "d", shared='param { name: "w" }'),
    ],
    ids=[
        "fixed and minifloat",
        "powers of two",
        "stochastic",
        "phase TRAIN",
        "biases of their own",
        "shared",
        "shared, stochastic",
    ],
)
def test_parameters_in_use_are_the_constants_of_the_graph(text: str, workshop: Any) -> None:
    net = workshop.load(INPUT + text)
    used = [array for _, _, array in params_in_use(net, rng=np.random.default_rng(5))]
    ops, run = record(net, rng=np.random.default_rng(5))
    import onnx
    from onnx import numpy_helper

    graph = lower(ops.graph, run.final).model(embed_weights=True).graph
    assert isinstance(graph, onnx.GraphProto)
    held = [numpy_helper.to_array(each) for each in graph.initializer]
    assert used
    for array in used:
        assert any(each.shape == array.shape and each.tobytes() == array.tobytes() for each in held)


def test_layers_that_share_a_parameter_round_it_alike(workshop: Any) -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    net = workshop.load(INPUT + layer(STOCHASTIC, shared=shared) + layer(STOCHASTIC, "d", shared=shared))
    arrays = {f"{each.name}/{i}": array for each, i, array in params_in_use(net, rng=np.random.default_rng(0))}
    assert list(arrays) == ["c/0", "c/1", "d/0", "d/1"]
    for i in (0, 1):
        np.testing.assert_array_equal(arrays[f"c/{i}"], arrays[f"d/{i}"])


def test_random_numbers_depend_on_the_parameter_and_the_generator(workshop: Any) -> None:
    array = np.full(1000, 0.5, np.float32)
    param_format = ParamFormat(Fixed(8, 0), Rounding.STOCHASTIC)

    def trimmed(seed: int, *keys: str) -> list[bytes]:
        quantizer = ParamQuantizer(np.random.default_rng(seed))
        return [quantizer.quantize(key, array, param_format).tobytes() for key in keys]

    first, second = trimmed(0, "a/0", "b/0")
    assert first != second
    assert trimmed(0, "b/0", "a/0") == [second, first]
    assert trimmed(1, "a/0") != [first]
