"""Trimmed types of forks of Ristretto: which values of a layer are trimmed, and to which formats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.param_formats import params_in_use
from ristretto_cli.net.weights import fill_weights

INPUTS = """
layer {{ name: "i" type: "Input" top: "x" top: "y"
  input_param {{ shape {{ dim: 1 dim: 2 dim: {height} dim: 1 }} shape {{ dim: 1 dim: 2 dim: {height} dim: 1 }} }} }}
"""
X = np.asarray([0.75, 2.25, -1.5, 40.0], np.float32).reshape(1, 2, 2, 1)
Y = np.asarray([0.375, 0.25, -0.125, 0.0], np.float32).reshape(1, 2, 2, 1)
HALVES = "bw_layer_in: 8 fl_layer_in: 0 bw_layer_out: 8 fl_layer_out: 1 bw_params: 8 fl_params: 2"
DOWN = "bw_params: 8 fl_params: 2 bw_layer_data: 8 fl_layer_data: 1"  # the tops are rounded down


def halves(values: Any) -> list[float]:
    """Rounded to multiples of 0.5, ties to even."""
    return [float(v) for v in np.round(np.asarray(values, np.float64).ravel() * 2) / 2]


def computed(
    nets: Any,
    run: Any,
    kind: str,
    quantization: str,
    *,
    settings: str = "",
    bottoms: tuple[str, ...] = ("x",),
    tops: tuple[str, ...] = ("t",),
    params: tuple[Any, ...] = (),
) -> tuple[Any, Any]:
    """The run of a net of one layer "l" with these parameters, and the net."""
    ends = " ".join([*(f'bottom: "{name}"' for name in bottoms), *(f'top: "{name}"' for name in tops)])
    layer = f'layer {{ name: "l" type: "{kind}" {ends} {settings} quantization_param {{ {quantization} }} }}'
    net = nets.build(INPUTS.format(height=2) + layer)
    net = fill_weights(net, rng=np.random.default_rng(0))
    arrays = {f"l/{i}": np.asarray(param, np.float32) for i, param in enumerate(params)}
    net = replace(net, weights={**net.weights, **arrays})
    return run(net, {"x": X, "y": Y}), net


def top(*args: Any, **more: Any) -> list[float]:
    """The elements of the first top."""
    result, _ = computed(*args, **more)
    return [float(v) for v in np.ravel(result.written("l"))]


@pytest.mark.parametrize(
    ("kind", "settings", "bottoms", "expected"),
    [
        ("EltwiseRistretto", "", ("x", "y"), X + Y),
        ("ConcatRistretto", "", ("x", "y"), np.concatenate([X, Y], 1)),
        ("ReLURistretto", "", ("x",), np.maximum(X, 0)),
        ("SoftmaxRistretto", "softmax_param { axis: 2 }", ("y",), np.full(4, 0.5)),
        ("PoolingRistretto", "pooling_param { pool: MAX kernel_size: 1 }", ("x",), X),
    ],
)
def test_only_the_top_is_trimmed(
    nets: Any, run: Any, kind: str, settings: str, bottoms: tuple[str, ...], expected: Any
) -> None:
    result, _ = computed(nets, run, kind, HALVES, settings=settings, bottoms=bottoms)
    assert np.ravel(result.written("l")).tolist() == halves(expected)
    assert np.ravel(result.end("x")).tolist() == X.ravel().tolist()


def test_trim_layer_in_trims_the_bottoms_too(nets: Any, run: Any) -> None:
    found = top(nets, run, "EltwiseRistretto", HALVES + " trim_layer_in: true", bottoms=("x", "y"))
    assert found == [1, 2, -2, 40]


def test_without_trim_layer_out_nothing_is_trimmed(nets: Any, run: Any) -> None:
    for setting in ("trim_layer_out: false", "quanti_out: false"):
        found = top(nets, run, "EltwiseRistretto", f"{HALVES} {setting}", bottoms=("x", "y"))
        assert found == (X + Y).ravel().tolist()


def test_of_a_slice_the_first_top_is_trimmed(nets: Any, run: Any) -> None:
    result, _ = computed(nets, run, "SliceRistretto", HALVES, tops=("t", "u"), settings="slice_param { axis: 2 }")
    assert np.ravel(result.written("l", 0)).tolist() == halves(X[:, :, 0])
    assert np.ravel(result.written("l", 1)).tolist() == X[:, :, 1].ravel().tolist()


def test_of_a_scale_everything_is_trimmed(nets: Any, run: Any) -> None:
    params = ([1.1, 0.4], [0.3, 0.9])  # trimmed: 1, 0.5; 0.25, 1
    found = top(nets, run, "ScaleRistretto", HALVES, settings="scale_param { bias_term: true }", params=params)
    assert found == halves([1 + 0.25, 2 + 0.25, -2 * 0.5 + 1, 40 * 0.5 + 1])


def test_of_a_prelu_everything_is_trimmed(nets: Any, run: Any) -> None:
    found = top(nets, run, "PReLURistretto", HALVES, params=([0.1, 0.3],))  # trimmed: 0, 0.25
    assert found == [1, 2, halves(-2 * 0.25)[0], 40]


def test_of_a_bias_only_the_parameter_is_trimmed(nets: Any, run: Any) -> None:
    found = top(nets, run, "BiasRistretto", HALVES, params=([0.3, 0.9],))
    assert found == [1, 2.5, -0.5, 41]


STATISTICS = ([0.6, 2.0], [4.6, 8.0], [2.0])  # mean 0.3, 1; variance 2.3, 4


@pytest.mark.parametrize(
    ("quantization", "mean", "variance", "deviation"),
    [
        ("", (0.25, 1), (2.25, 4), (1.5, 2)),
        ("bw_params: 8 fl_params: 0", (0, 1), (2, 4), (1, 2)),  # the square root of 2 is trimmed once more
        ("bw_mean: 8 fl_mean: 0 bw_var: 8 fl_var: 0 bw_mov: 8 fl_mov: 0", (0, 1), (2, 4), (2**0.5, 2)),
        ("bw_mean: 8 fl_mean: 1 bw_mov: 8 fl_mov: -2", (0, 0), (0, 0), (1e-2, 1e-2)),  # a factor of 0
    ],
)
def test_of_a_batch_norm_the_statistics_are_trimmed(
    nets: Any, run: Any, quantization: str, mean: Any, variance: Any, deviation: Any
) -> None:
    formats = "bw_layer_in: 8 fl_layer_in: 0 bw_layer_out: 24 fl_layer_out: 8 "
    formats += quantization or "bw_params: 8 fl_params: 2"
    settings = "batch_norm_param { eps: 1e-4 }"
    found = top(nets, run, "BatchNormRistretto", formats, settings=settings, params=STATISTICS)
    x = np.round(X).reshape(2, 2)
    expected = (x - np.reshape(mean, (2, 1))) / np.reshape(deviation, (2, 1))
    assert found == pytest.approx(expected.ravel().tolist(), rel=1e-4, abs=2**-8)


def test_formats_of_mean_and_deviation_leave_the_top_of_a_batch_norm_as_it_is(nets: Any, run: Any) -> None:
    formats = (
        "bw_layer_in: 8 fl_layer_in: 0 bw_layer_out: 8 fl_layer_out: 0 batchnorm_mean_bw: 8 batchnorm_mean_fl: 0 "
        "batchnorm_variance_bw: 8 batchnorm_variance_fl: 1"
    )
    found = top(nets, run, "BatchNormRistretto", formats, params=STATISTICS)
    assert found == pytest.approx([1 / 1.5, 2 / 1.5, -3 / 2, 39 / 2], rel=1e-6)


def test_a_batch_norm_with_statistics_of_the_batch_is_refused(nets: Any) -> None:
    layer = 'layer { name: "l" type: "BatchNormRistretto" bottom: "x" top: "t" }'
    (refusal,) = nets.refusals(INPUTS.format(height=2) + layer, TRAIN)
    assert "it quantizes only stored statistics" in refusal
    assert refusal.endswith("Set batch_norm_param { use_global_stats: true }, or use type BatchNorm.")


def test_fields_of_two_forks_do_not_mix(nets: Any) -> None:
    layer = (
        'layer { name: "l" type: "BatchNormRistretto" bottom: "x" top: "t" '
        "quantization_param { bw_mean: 8 batchnorm_mean_bw: 8 } }"
    )
    (refusal,) = nets.refusals(INPUTS.format(height=2) + layer)
    assert "bw_mean and batchnorm_mean_bw are fields of different forks" in refusal


# Formats of tops and parameters only.


@pytest.mark.parametrize(("sign", "expected"), [(1, [1.0, 2.5, -2.0, 40.0]), (0, [1.0, 2.5, 0.0, 40.0])])
def test_tops_are_rounded_down(nets: Any, run: Any, sign: int, expected: list[float]) -> None:
    formats = f"bw_params: 0 fl_params: 0 bw_layer_data: 8 fl_layer_data: 1 is_sign_data: {sign}"
    assert top(nets, run, "EltwiseRistretto", formats, bottoms=("x", "y")) == expected


def test_they_saturate(nets: Any, run: Any) -> None:
    formats = "bw_layer_data: 4 fl_layer_data: 1"
    found = top(nets, run, "PoolingRistretto", formats, settings="pooling_param { kernel_size: 1 }")
    assert found == [0.5, 2, -1.5, 3.5]


def test_biases_have_the_bits_of_the_weights_and_the_length_that_fits(nets: Any, run: Any) -> None:
    params = ([[1.1, 0.4, 0.1, 0.0]], [5.0625])  # with a range of 5.0625, 4 of 8 bits are before the point
    _, net = computed(
        nets, run, "InnerProductRistretto", DOWN, settings="inner_product_param { num_output: 1 }", params=params
    )
    weights, bias = (array for _, _, array in params_in_use(net, rng=np.random.default_rng(0)))
    assert weights.ravel().tolist() == [1.0, 0.5, 0.0, 0.0]
    assert bias.tolist() == [5.0625]
    _, narrow = computed(
        nets,
        run,
        "InnerProductRistretto",
        DOWN.replace("bw_params: 8", "bw_params: 5"),
        settings="inner_product_param { num_output: 1 }",
        params=params,
    )
    (*_, (_, _, bias)) = params_in_use(narrow, rng=np.random.default_rng(0))
    assert bias.tolist() == [5.0]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("DeconvolutionRistretto", "convolution_param { num_output: 1 kernel_size: 1 }"), ("PReLURistretto", "")],
)
def test_types_whose_parameters_the_fork_does_not_trim(nets: Any, run: Any, kind: str, settings: str) -> None:
    _, net = computed(nets, run, kind, DOWN, settings=settings)
    net = replace(net, weights={key: np.full_like(array, 0.3) for key, array in net.weights.items()})
    assert all((array == np.float32(0.3)).all() for _, _, array in params_in_use(net, rng=np.random.default_rng(0)))


# What is refused, and how.


@pytest.mark.parametrize(
    ("fields", "what", "remedy"),
    [
        ("scale_in: 12.5 scale_params: 3", "scale_in and scale_params: scales that are not powers of two", "Remove"),
        ("int8_term: true", "int8_term: scales that are not powers of two", "Remove them"),
        ("fl_weights: 3", "fl_weights: parameters that the weights file stores as integers", "Multiply them by 2^"),
        ('quantize_file: "f"', "quantize_file: formats in another file", "set the formats in the quantization_param"),
    ],
)
def test_fields_with_another_meaning_are_refused(nets: Any, fields: str, what: str, remedy: str) -> None:
    layer = f'layer {{ name: "l" type: "ReLURistretto" bottom: "x" top: "t" quantization_param {{ {fields} }} }}'
    (refusal,) = nets.refusals(INPUTS.format(height=2) + layer)
    assert what in refusal
    assert remedy in refusal


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("LSTMRistretto", "Use LSTM, which computes in float, without quantization_param. The trimmed types are "),
        ("SigmoidRistretto", "Use Sigmoid, which computes in float"),
        ("InerProductRistretto", "Did you mean InnerProductRistretto?"),
    ],
)
def test_trimmed_types_that_are_not_supported_are_refused_by_name(nets: Any, kind: str, remedy: str) -> None:
    layer = f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "t" }}'
    (refusal,) = nets.refusals(INPUTS.format(height=2) + layer)
    assert f'layer "l" ({kind}): unknown layer type "{kind}". {remedy}' in refusal


def test_training_with_biases_fitted_to_their_range_is_refused(nets: Any) -> None:
    from ristretto_cli.formats.fork_fields import FittedFixed
    from ristretto_cli.formats.number_format import Rounding

    with pytest.raises(RistrettoError, match="cannot be trained"):
        FittedFixed(8).quantize(None, np.zeros(2, np.float32), Rounding.NEAREST)  # type: ignore[arg-type, call-overload]
