"""The choice of formats and scales: channels in front of BatchNorm, class scores, steps of fractional lengths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.corrections.channel_scales import channel_scales
from ristretto_cli.corrections.class_scores import is_class_scores, shifted_scores
from ristretto_cli.corrections.divergence import class_divergence, descend
from ristretto_cli.corrections.layer_moments import LayerMoments
from ristretto_cli.corrections.layer_rounding import round_layer
from ristretto_cli.corrections.rounding_to import quantized, round_to
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.number_format import LayerFormats, Rounding


def softmax(scores: Any) -> Any:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


# --- scales of channels


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_scaled_channels_have_smaller_relative_errors(bits: int) -> None:
    rng = np.random.default_rng(bits)
    weights = rng.normal(size=(2, 4, 9)) * np.exp(2 * rng.normal(size=(2, 4, 1)))
    inputs = rng.normal(size=(2, 200, 9))
    moments, outputs = inputs.transpose(0, 2, 1) @ inputs / 200, inputs @ weights.transpose(0, 2, 1)
    params = Fixed(bits, bits - 2)
    found = channel_scales(weights, moments, outputs, params, Fixed(8, 4))
    assert found.scales.shape == (2, 4) and (found.scales > 0).all() and np.isfinite(found.scales).all()
    assert found.layer_out is not None and found.layer_out.bits == 8

    def error(scales: Any) -> float:
        errors = round_to(params)(weights * scales[:, :, None]) / scales[:, :, None] - weights
        return float((((errors @ moments) * errors).sum(2) / outputs.var(1)).sum())

    assert error(found.scales) <= error(np.ones((2, 4)))


def test_dead_channels_and_inputs_have_finite_scales() -> None:
    weights = np.zeros((1, 3, 4))
    weights[0, 1] = 1e-30
    for params in (Fixed(1, 0), Fixed(4, 3)):
        found = channel_scales(weights, np.zeros((1, 4, 4)), np.zeros((1, 10, 3)), params, None)
        assert np.isfinite(found.scales).all() and (found.scales > 0).all() and found.layer_out is None


# --- class scores


def test_a_vector_added_to_the_weights_of_all_classes_changes_no_probability() -> None:
    rng = np.random.default_rng(0)
    inputs, weights, vector = rng.normal(size=(20, 6)), rng.normal(size=(4, 6)), rng.normal(size=6)
    np.testing.assert_allclose(softmax(inputs @ (weights + vector).T), softmax(inputs @ weights.T), rtol=1e-10)


@pytest.mark.parametrize("offset", [0.0, 3.0, 40.0])
def test_shifted_scores_are_not_further_from_the_float_nets(offset: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 10)) * 3 + offset
    profile = rng.uniform(0.8, 1.2, size=200)
    layer_out = Fixed(3, -4 if offset > 10 else -1)
    shift, found = shifted_scores(scores, profile, layer_out)
    assert shift <= 0 and found.bits == 3
    before = class_divergence(scores, round_to(layer_out)(scores), 1)
    after = class_divergence(scores, round_to(found)(scores + shift * profile[:, None]), 1)
    assert after <= before * 1.2 + 1e-12


CLASSES = (
    'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 dim: 3 } } }\n'
    'layer { name: "fc" type: "InnerProduct" bottom: "in" top: "fc" inner_product_param { num_output: 3 } }\n'
)
SOFTMAX = 'layer { name: "p" type: "Softmax" bottom: "fc" top: "p" %s }\n'


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (SOFTMAX % "", True),
        ("", False),
        (SOFTMAX % "softmax_param { axis: 0 }", False),
        (SOFTMAX % "" + 'layer { name: "r" type: "ReLU" bottom: "fc" top: "r" }\n', False),
        ('layer { name: "r" type: "ReLU" bottom: "fc" top: "fc" }\n' + SOFTMAX % "", False),
        ('layer { name: "f" type: "Flatten" bottom: "fc" top: "f" }\n' + SOFTMAX % "", False),
    ],
)
def test_class_scores_are_read_by_softmax_alone(workshop: Any, rest: str, expected: bool) -> None:
    net = workshop.load(CLASSES + rest)
    assert is_class_scores(net, net.layers[1]) is expected


def test_equal_scores_up_to_a_constant_have_no_divergence() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    assert class_divergence(scores, scores + 100, 1) == pytest.approx(0, abs=1e-6)
    assert class_divergence(scores, 2 * scores, 1) > 0
    # Huge scores overflow nothing.
    assert np.isfinite(class_divergence(scores * np.float32(1e30), -scores * np.float32(1e30), 1))


# --- fractional lengths


def test_steps_must_help_on_both_halves_of_the_batches() -> None:
    start = Fixed(4, 2)

    def towards(best: dict[int, int]) -> Any:
        return lambda candidate, batch: 1.0 + abs(candidate.frac_bits - best[batch % 2])

    assert descend(start, 4, towards({0: 5, 1: 5})) == replace(start, frac_bits=5)
    assert descend(start, 4, towards({0: 0, 1: 0})) == replace(start, frac_bits=0)
    assert descend(start, 4, towards({0: 5, 1: 3})) == replace(start, frac_bits=3)
    assert descend(start, 4, towards({0: 5, 1: 2})) == start
    assert descend(start, 4, towards({0: 5, 1: 0})) == start
    assert descend(start, 1, towards({0: 5, 1: 5})) == start
    assert descend(start, 0, towards({0: 5, 1: 5})) == start
    # Divergences of 0 and small gains end it.
    assert descend(start, 4, lambda candidate, batch: 0.0) == start
    assert descend(start, 4, lambda candidate, batch: 1 - 0.001 * candidate.frac_bits) == start
    assert descend(start, 4, lambda candidate, batch: float("nan")) == start
    assert descend(start, 4, lambda candidate, batch: 1.0 if candidate == start else float("nan")) == start


# --- moments and layers


@pytest.mark.parametrize("offset", [0, 500])
def test_moments_are_those_of_all_batches_together(offset: float) -> None:
    rng = np.random.default_rng(0)
    own = (rng.normal(size=(2, 300, 5)) + offset).astype(np.float32)
    floats = (own + rng.normal(size=own.shape) * 0.1 - 2).astype(np.float32)
    moments = LayerMoments(2, 5)
    for start in range(0, 300, 100):
        moments.add(own[:, start : start + 100], floats[:, start : start + 100])
    a, b = own.astype(np.float64), floats.astype(np.float64)
    np.testing.assert_allclose(moments.mean, a.mean(1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.float_mean, b.mean(1), rtol=1e-6, atol=1e-6)
    centred = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    found = moments.centred()
    np.testing.assert_allclose(found[0], centred[0].transpose(0, 2, 1) @ centred[0] / 300, atol=1e-4)
    np.testing.assert_allclose(found[1], centred[1].transpose(0, 2, 1) @ centred[0] / 300, atol=1e-4)
    ones = np.concatenate([a, np.ones((2, 300, 1))], 2), np.concatenate([b, np.ones((2, 300, 1))], 2)
    for ours, left in zip(moments.with_ones(), ones, strict=True):
        np.testing.assert_allclose(ours, left.transpose(0, 2, 1) @ ones[0] / 300, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(moments.about_zero()[1], b.transpose(0, 2, 1) @ a / 300, rtol=1e-5, atol=1e-4)


def formats(weights: Fixed, bias: Fixed | None = None) -> LayerFormats:
    return LayerFormats(layer_in=None, layer_out=None, weights=weights, bias=bias, rounding=Rounding.NEAREST)


@pytest.mark.parametrize("value", [0.0, 200.3, 1e6])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_constant_inputs_give_finite_weights_on_the_grid(value: float, normalized: bool, has_bias: bool) -> None:
    rng = np.random.default_rng(0)
    inputs = np.full((1, 999, 40), value, np.float32)
    weights, bias = rng.normal(size=(1, 6, 40)), rng.normal(size=(1, 6)) if has_bias else None
    moments = LayerMoments(1, 40)
    for _ in range(3):
        moments.add(inputs, inputs)
    params = Fixed(3, 1)
    outputs = np.zeros((1, 50, 6)) if normalized else None
    for bias_format in (params, Fixed(8, 3)):
        found = round_layer(weights, bias, moments, formats(params, bias_format), params, outputs=outputs)
        assert np.isfinite(found.weights).all()
        np.testing.assert_array_equal(quantized(found.weights.astype(np.float32), found.params), found.weights)


@pytest.mark.parametrize("bias_format", [None, Fixed(12, 6), Fixed(3, 1)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_outputs_are_closer_than_with_nearest_rounding(bias_format: Fixed | None, has_bias: bool) -> None:
    rng = np.random.default_rng(0)
    # Inputs with means, as after a ReLU: without a bias, nothing but the weights can keep the mean of the outputs.
    inputs = np.abs(rng.normal(size=(1, 400, 4)) @ rng.normal(size=(1, 4, 30))).astype(np.float32)
    weights, bias = rng.normal(size=(1, 8, 30)) * 0.4, rng.normal(size=(1, 8)) * 0.4 if has_bias else None
    moments, params = LayerMoments(1, 30), Fixed(3, 1)
    moments.add(inputs, inputs)
    found = round_layer(weights, bias, moments, formats(params, bias_format), params, outputs=None)
    expected = inputs @ weights.transpose(0, 2, 1) + (0 if bias is None else bias[:, None])
    nearest_bias = 0.0
    if bias is not None:
        nearest_bias = (bias if bias_format is None else round_to(bias_format)(bias))[:, None]
    nearest = inputs @ round_to(params)(weights).transpose(0, 2, 1) + nearest_bias
    ours = inputs @ found.weights.transpose(0, 2, 1) + (0 if found.bias is None else found.bias[:, None])
    assert (found.bias is None) == (bias is None)
    assert np.square(ours - expected).mean() < 0.3 * np.square(nearest - expected).mean()
