"""Nets as programs over integers, compared value by value with the float pass of the same nets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.integers.compiler import compile_program
from ristretto_cli.integers.program import Affine, Convolution, MaxPool, Requantize, Sum, SumPool, Table
from ristretto_cli.integers.rounding import ShiftRounding
from tests.integers.conftest import DATA, conv, run_beside


def layer(name: str, kind: str, bottoms: str, settings: str = "", top: str | None = None) -> str:
    text = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {text} top: "{top or name}" {settings} }}\n'


FC = """
    layer { name: "fc" type: "FcRistretto" bottom: "%s" top: "fc"
        inner_product_param { num_output: 5 %s weight_filler { type: "uniform" min: -0.9 max: 0.9 }
            bias_filler { type: "uniform" min: -2 max: 2 } }
        quantization_param { bw_layer_in: 7 fl_layer_in: 4 bw_layer_out: 9 fl_layer_out: 4 bw_params: 5 fl_params: 4 } }
"""

NETS = {
    "convolutions": conv("a", "x") + layer("r", "ReLU", "a", top="a") + conv("b", "a", fl_layer_in=4),
    "stride, dilation": conv("a", "x", "num_output: 6 kernel_size: 3 stride: 2 pad: 2 dilation: 2"),
    "groups": conv("a", "x", "num_output: 8 kernel_h: 2 kernel_w: 3 group: 2"),
    "no bias": conv("a", "x", "num_output: 3 kernel_size: 1 bias_term: false"),
    "one-sided padding": conv("a", "x", "num_output: 3 kernel_size: 3 pad_t: 1 pad_l: 2 pad_b: 0 pad_r: 1"),
    "deconvolution": conv("a", "x", "num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2").replace(
        "ConvolutionRistretto", "DeconvolutionRistretto"
    ),
    "dilated deconvolution": conv("a", "x", "num_output: 5 kernel_size: 2 stride: 2 dilation: 3").replace(
        "ConvolutionRistretto", "DeconvolutionRistretto"
    ),
    "coarse input": conv("a", "x", fl_layer_in=-1, fl_params=6),
    "output finer than the sums": conv("a", "x", fl_layer_in=0, fl_params=1, fl_layer_out=4, bw_layer_out=16),
    "biases of their own": conv("a", "x", bw_bias=16, fl_bias=14),
    "unsigned": conv("a", "x") + layer("r", "ReLU", "a", top="a") + conv("b", "a", unsigned_layer_in="true"),
    "1 bit": conv("a", "x", bw_params=1, fl_params=0),
    "inner product": conv("a", "x") + FC % ("a", ""),
    "transposed": conv("a", "x") + FC % ("a", "transpose: true"),
    "transposed without bias": conv("a", "x") + FC % ("a", "transpose: true bias_term: false"),
    "max pooling": conv("a", "x")
    + layer("p", "Pooling", "a", "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }")
    + conv("b", "p"),
    "max pooling with sides": conv("a", "x")
    + layer("p", "Pooling", "a", "pooling_param { kernel_size: 2 stride: 2 pad_t: 1 pad_l: 1 pad_b: 0 pad_r: 0 }"),
    "average pooling": conv("a", "x")
    + layer("p", "Pooling", "a", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }")
    + conv("b", "p"),
    "average of windows past the end": conv("a", "x")
    + layer("p", "Pooling", "a", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
    + layer("r", "ReLU", "p")
    + conv("b", "r", fl_layer_in=6),
    "global average": conv("a", "x")
    + layer("p", "Pooling", "a", "pooling_param { pool: AVE global_pooling: true }")
    + FC % ("p", ""),
    "averages added": conv("a", "x")
    + layer("p", "Pooling", "a", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
    + layer("q", "Pooling", "a", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    + layer("s", "Eltwise", "p q")
    + conv("b", "s"),
    "residual": conv("a", "x")
    + conv("b", "a", fl_layer_out=1)
    + layer("s", "Eltwise", "a b")
    + layer("r", "ReLU", "s", top="s")
    + conv("c", "s"),
    "coefficients": conv("a", "x")
    + conv("b", "a")
    + layer("s", "Eltwise", "a b", "eltwise_param { coeff: 0.5 coeff: -1 }")
    + conv("c", "s"),
    "maximum": conv("a", "x")
    + conv("b", "a", fl_layer_out=1)
    + layer("s", "Eltwise", "a b", "eltwise_param { operation: MAX }")
    + conv("c", "s"),
    "product": conv("a", "x")
    + conv("b", "a", fl_layer_out=1)
    + layer("s", "Eltwise", "a b", "eltwise_param { operation: PROD }")
    + conv("c", "s"),
    "concat": conv("a", "x")
    + conv("b", "a", fl_layer_out=1)
    + layer("s", "Concat", "a b")
    + conv("c", "s"),
    "slice": conv("a", "x")
    + 'layer { name: "s" type: "Slice" bottom: "a" top: "s1" top: "s2" slice_param { slice_point: 1 } }\n'
    + conv("b", "s1")
    + conv("c", "s2"),
    "shuffled": conv("a", "x")
    + layer("s", "ShuffleChannel", "a", "shuffle_channel_param { group: 2 }")
    + conv("b", "s"),
    "permuted": conv("a", "x")
    + layer("s", "Permute", "a", "permute_param { order: 0 order: 2 order: 3 order: 1 }")
    + layer("f", "Flatten", "s")
    + FC % ("f", ""),
    "two readers": conv("a", "x") + conv("b", "a", fl_layer_in=2) + layer("s", "Eltwise", "a b") + conv("c", "s"),
    "dropout": conv("a", "x") + layer("d", "Dropout", "a", top="a") + FC % ("a", ""),
    "ReLU6": conv("a", "x") + layer("r", "ReLU6", "a") + conv("b", "r"),
    "leaky ReLU": conv("a", "x") + layer("r", "ReLU", "a", "relu_param { negative_slope: 0.3 }") + conv("b", "r"),
    "PReLU": conv("a", "x")
    + layer("r", "PReLU", "a", 'prelu_param { filler { type: "uniform" min: -1 max: 1 } }')
    + conv("b", "r"),
    "absolute values": conv("a", "x") + layer("r", "AbsVal", "a") + conv("b", "r"),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_program_gives_the_values_of_the_float_pass(workshop: Any, name: str) -> None:
    found = run_beside(workshop.load(DATA + NETS[name]))
    assert found.differing() == {}
    assert len(found.exact) >= 2
    assert found.compiled.program.outputs


AFFINE = """
    layer { name: "bn" type: "BatchNorm" bottom: "a" top: "bn" }
    layer { name: "sc" type: "Scale" bottom: "bn" top: "sc" scale_param { bias_term: true } }
"""


SHORTCUT = conv("b", "a") + layer("s", "Eltwise", "b sc") + conv("c", "s")


def with_affine(workshop: Any, rest: str, **formats: Any) -> Any:
    net = workshop.load(DATA + conv("a", "x", **formats) + AFFINE + rest)
    rng = np.random.default_rng(2)
    net.weights["bn/0"][:], net.weights["bn/1"][:], net.weights["bn/2"][:] = (
        rng.uniform(-9, 9, 4),
        rng.uniform(5, 50, 4),
        3,
    )
    net.weights["sc/0"][:], net.weights["sc/1"][:] = rng.uniform(-2, 2, 4), rng.uniform(-1, 1, 4)
    return net


def test_a_normalization_that_is_quantized_at_once_is_a_table_of_its_result(workshop: Any) -> None:
    net = with_affine(workshop, layer("r", "ReLU", "sc", top="sc") + conv("b", "sc"))
    found = run_beside(net)
    (table,) = (step for step in found.compiled.program.steps if isinstance(step, Table))
    assert table.layers == ("bn", "sc", "r")
    assert table.entries.shape == (4, 256)
    assert table.quantizes
    assert found.differing() == {}
    assert {"a", "b", "sc@end"} <= found.exact


def test_a_normalization_in_a_shortcut_has_more_fraction_bits(workshop: Any) -> None:
    net = with_affine(workshop, SHORTCUT)
    found = run_beside(net)
    kinds = [type(step) for step in found.compiled.program.steps]
    assert kinds == [Convolution, Requantize, Convolution, Table, Sum, Requantize, Convolution]
    assert found.differing() == {}
    assert {"s"}.isdisjoint(found.exact)
    assert np.abs(found.program["s"] - found.floats["s"]).max() < 2**-18
    assert np.abs(found.program["s"] - found.floats["s"]).max() > 0


def test_a_normalization_of_wide_values_is_a_product(workshop: Any) -> None:
    net = with_affine(workshop, SHORTCUT, bw_layer_out=16, fl_layer_out=11)
    found = run_beside(net)
    (affine,) = (step for step in found.compiled.program.steps if isinstance(step, Affine))
    assert affine.multipliers.shape == affine.offsets.shape == (4,)
    assert found.differing() == {}
    assert np.abs(found.program["s"] - found.floats["s"]).max() < 2**-9


@pytest.mark.parametrize("rounding", list(ShiftRounding))
def test_each_rounding_mode_is_used_everywhere_but_for_inputs(workshop: Any, rounding: ShiftRounding) -> None:
    net = with_affine(workshop, conv("b", "sc"))
    found = run_beside(net, rounding=rounding)
    first = found.compiled.program.steps[0]
    assert isinstance(first, Convolution)
    sums = run_beside(workshop.load(DATA + conv("a", "x", bw_layer_out=30, fl_layer_out=10))).integers["a"]
    assert first.requantization is not None
    shift = first.requantization.shift
    expected = {
        ShiftRounding.HALF_EVEN: np.rint(sums / 2.0**shift),
        ShiftRounding.HALF_UP: np.floor(sums / 2.0**shift + 0.5),
        ShiftRounding.AWAY: np.trunc(sums / 2.0**shift + np.copysign(0.5, sums)),
        ShiftRounding.FLOOR: np.floor(sums / 2.0**shift),
    }[rounding]
    assert (found.integers["a"] == expected.clip(-128, 127)).all()


def test_sums_beyond_float32_and_float64_are_exact(workshop: Any) -> None:
    wide = {
        "bw_layer_in": 25,
        "fl_layer_in": 22,
        "bw_params": 25,
        "fl_params": 24,
        "bw_layer_out": 60,
        "fl_layer_out": 46,
    }
    net = workshop.load(DATA + conv("a", "x", "num_output: 2 kernel_size: 3 bias_term: false", **wide))
    rng = np.random.default_rng(3)
    x = rng.uniform(-4, 4, (3, 4, 7, 6)).astype(np.float32)
    found = run_beside(net, {"x": x}).integers["a"]
    integers = np.rint(x.astype(np.float64) * 2**22).astype(np.int64).astype(object)
    weights = np.rint(net.weights["a/0"].reshape(2, 4, 3, 3).astype(np.float64) * 2**24).astype(np.int64).astype(object)
    expected = sum(
        integers[:, None, c, i : i + 5, j : j + 4] * weights[None, :, c, i, j, None, None]
        for c in range(4)
        for i in range(3)
        for j in range(3)
    )
    assert (found.astype(object) == expected).all()


def test_bounds_hold_for_the_worst_input(workshop: Any) -> None:
    net = workshop.load(DATA + conv("a", "x", "num_output: 1 kernel_h: 7 kernel_w: 6"))
    program = compile_program(net).program
    (step,) = program.steps
    assert isinstance(step, Convolution)
    worst = np.where(step.weights[0] > 0, 127, -128)
    biases = 0 if step.biases is None else max(int(step.biases[0]), 0)
    assert step.high == int((worst * step.weights[0]).sum()) + biases
    assert 2 ** (step.accumulator_bits - 2) <= max(step.high, -step.low) <= 2 ** (step.accumulator_bits - 1)


def test_layers_in_front_and_behind_stay_on_the_host(workshop: Any) -> None:
    text = (
        DATA
        + layer("norm", "LRN", "x")
        + conv("a", "norm")
        + layer("p", "Pooling", "a", "pooling_param { pool: AVE global_pooling: true }")
        + layer("sm", "Softmax", "p")
    )
    net = workshop.load(text)
    compiled = compile_program(net)
    program = compiled.program
    assert [net.layers[i].name for i in compiled.before] == ["norm"]
    assert [(each.name, each.reason) for each in program.host] == [("sm", "Softmax has no integer form")]
    assert list(program.outputs) == ["p"]
    assert program.outputs["p"].divisor == 21
    assert [each.blob for each in program.inputs] == ["norm"]
    assert isinstance(program.steps[-1], SumPool)


def test_the_last_layers_may_have_any_integer_form(workshop: Any) -> None:
    net = workshop.load(DATA + conv("a", "x") + layer("p", "Pooling", "a", "pooling_param { kernel_size: 2 }"))
    assert isinstance(compile_program(net).program.steps[-1], MaxPool)


REFUSED = {
    "LRN": (layer("n", "LRN", "a") + conv("b", "n"), 'layer "n" (LRN): LRN has no integer form'),
    "sigmoid": (layer("n", "Sigmoid", "a") + conv("b", "n"), "Sigmoid has no integer form"),
    "softmax": (layer("n", "Softmax", "a") + conv("b", "n"), "Softmax has no integer form"),
    "not trimmed": (
        layer("n", "Convolution", "a", "convolution_param { num_output: 2 kernel_size: 1 }") + conv("b", "n"),
        "its weights are not trimmed to fixed point",
    ),
    "minifloat": (conv("b", "a", precision="MINIFLOAT", mant_bits=3, exp_bits=4), "minifloats"),
    "powers of two": (
        conv("b", "a", precision="INTEGER_POWER_OF_2_WEIGHTS", exp_min=-8, exp_max=-1),
        "its biases are not trimmed to fixed point",
    ),
    "stochastic": (conv("b", "a", rounding_scheme="STOCHASTIC"), "draws random numbers"),
    "batch statistics": (
        layer("n", "BatchNorm", "a", "batch_norm_param { use_global_stats: false }") + conv("b", "n"),
        "statistics of each batch",
    ),
    "a fractional length without meaning": (conv("b", "a", fl_layer_out=-100000), "out of range"),
    "sums that are too wide": (
        conv("b", "a", bw_layer_in=32, fl_layer_in=28, bw_params=32, fl_params=31),
        "bits, more than 61",
    ),
    "wide PReLU": (
        conv("c", "a", bw_layer_out=16, fl_layer_out=9) + layer("n", "PReLU", "c") + conv("b", "n"),
        "a table of its input of 16 bits is too large",
    ),
    "images in another order": (
        layer("n", "Reshape", "a", "reshape_param { shape { dim: 6 dim: 2 dim: 7 dim: 6 } }") + conv("b", "n"),
        "its first axis is not that of the images",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_integer_form_is_refused_with_the_layer_and_the_reason(workshop: Any, name: str) -> None:
    text, reason = REFUSED[name]
    with pytest.raises(RistrettoError) as refused:
        compile_program(workshop.load(DATA + conv("a", "x") + text))
    message = str(refused.value)
    assert reason in message
    assert message.count("\n") == 0
    assert "net.prototxt:" in message
    assert 'layer "' in message


def test_all_refusals_are_given_at_once(workshop: Any) -> None:
    text = DATA + conv("a", "x") + layer("n", "LRN", "a") + conv("b", "n") + layer("m", "Sigmoid", "b") + conv("c", "m")
    with pytest.raises(RistrettoError) as refused:
        compile_program(workshop.load(text))
    lines = str(refused.value).splitlines()
    assert [('"n"' in line, '"m"' in line) for line in lines] == [(True, False), (False, True)]


def test_a_net_that_is_not_trimmed_is_refused(workshop: Any) -> None:
    text = DATA + layer("a", "Convolution", "x", "convolution_param { num_output: 2 kernel_size: 1 }")
    with pytest.raises(RistrettoError, match="no layer that is trimmed to fixed point"):
        compile_program(workshop.load(text))
