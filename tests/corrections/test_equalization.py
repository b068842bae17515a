"""Equalization: the same function, for all ways from the layers that make channels to those that read them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.corrections.corrector import Method
from ristretto_cli.corrections.equalization import equalize
from ristretto_cli.corrections.float_net import easier_weights
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.execution import Execution

SHAPE = (2, 3, 6, 6)
INPUT = 'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }\n'
FILLERS = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def conv(name: str, bottom: str, settings: str = "", *, outputs: int = 4, params: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {params} '
        f"convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 {FILLERS} {settings} }} }}\n"
    )


def fc(name: str, bottom: str, settings: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"inner_product_param {{ num_output: 4 {FILLERS} {settings} }} }}\n"
    )


def layer(kind: str, bottoms: str, top: str, settings: str = "", name: str = "") -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    tops = " ".join(f'top: "{each}"' for each in top.split())
    return f'layer {{ name: "{name or "l_" + top.split()[0]}" type: "{kind}" {read} {tops} {settings} }}\n'


def load(workshop: Any, text: str) -> Net:
    """A net with channels of very different scales."""
    net = workshop.load(INPUT + text)
    weights, rng = {}, np.random.default_rng(7)
    for key, array in net.weights.items():
        each = np.asarray(array)
        scales = np.exp(rng.normal(size=(len(each), *(1 for _ in each.shape[1:]))) * 1.5) if each.ndim else 1.0
        weights[key] = (each * scales).astype(np.float32)
    return replace(net, weights=weights)


def outputs(net: Net) -> dict[str, Any]:
    values = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    runner = compile_net(
        net, lambda run, ops: {each.name: run.final[each.name] for each in net.outputs}, rng=np.random.default_rng(0)
    )
    return runner.run({"in": values})


def check(net: Net) -> set[str]:
    """The layers with changed parameters, of a net that computes the same."""
    changed = equalize(net, {})
    before, after = outputs(net), outputs(replace(net, weights={**net.weights, **changed}))
    for name, expected in before.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(after[name] / scale, expected / scale, rtol=1e-4, atol=1e-5)
    assert all(array.shape == net.weights[key].shape and np.isfinite(array).all() for key, array in changed.items())
    return {key.split("/")[0] for key in changed if not np.array_equal(changed[key], net.weights[key])}


A, B = conv("a", "in"), conv("b", "a")
PASSED = {
    "directly": A + B,
    "ReLU in place": A + layer("ReLU", "a", "a") + B,
    "leaky ReLU": A + layer("ReLU", "a", "r", "relu_param { negative_slope: 0.1 }") + conv("b", "r"),
    "PReLU": A + layer("PReLU", "a", "a") + B,
    "max pooling": A + layer("Pooling", "a", "p", "pooling_param { kernel_size: 2 stride: 2 }") + conv("b", "p"),
    "mean pooling": A
    + layer("Pooling", "a", "p", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }")
    + conv("b", "p"),
    "global pooling": A + layer("Pooling", "a", "p", "pooling_param { pool: AVE global_pooling: true }") + fc("b", "p"),
    "Dropout": A + layer("Dropout", "a", "a") + B,
    "Dropout that scales in TEST": A + layer("Dropout", "a", "a", "dropout_param { scale_train: false }") + B,
    "Split": A + layer("Split", "a", "s t") + conv("b", "s") + conv("d", "t"),
    "Scale": A
    + layer("BatchNorm", "a", "a", name="bn")
    + layer("Scale", "a", "a", "scale_param { bias_term: true filler { value: 2 } bias_filler { value: 1 } }", name="b")
    + conv("d", "a"),
    "InnerProduct": A + fc("b", "a"),
    "transposed InnerProduct": A + fc("b", "a", "transpose: true") + fc("d", "b"),
    "groups": conv("a", "in", outputs=6)
    + conv("b", "a", "group: 2", outputs=6)
    + conv("d", "b", "group: 3", outputs=3),
    "depthwise": A + conv("b", "a", "group: 4") + conv("d", "b"),
    "two readers": A + B + conv("d", "a"),
    "a Split and a ReLU in place of one top": A
    + layer("Split", "a", "s t")
    + conv("b", "s")
    + layer("ReLU", "t", "t")
    + conv("d", "t"),
}


@pytest.mark.parametrize("name", PASSED)
def test_scaled_channels_leave_the_outputs(workshop: Any, name: str) -> None:
    assert {"b"} <= check(load(workshop, PASSED[name]))


def test_residual_sums_have_common_factors(workshop: Any) -> None:
    text = A + conv("b", "a") + layer("Eltwise", "a b", "s") + layer("ReLU", "s", "s", name="r") + conv("d", "s")
    text += layer("Eltwise", "s d", "t", "eltwise_param { coeff: 1 coeff: -2 }") + conv("e", "t")
    assert check(load(workshop, text)) == {"a", "b", "d", "e"}


def test_maxima_have_common_factors(workshop: Any) -> None:
    text = A + conv("b", "in") + layer("Eltwise", "a b", "s", "eltwise_param { operation: MAX }") + conv("d", "s")
    assert check(load(workshop, text)) == {"a", "b", "d"}


def test_concatenated_channels_are_scaled_each(workshop: Any) -> None:
    text = A + conv("b", "in", outputs=2) + layer("Concat", "a b", "s") + conv("d", "s")
    assert check(load(workshop, text)) == {"a", "b", "d"}


FIXED = {
    "an output of the net": A,
    "an output and a ReLU": A + layer("ReLU", "a", "r"),
    "LRN": A + layer("LRN", "a", "l") + conv("b", "l"),
    "Sigmoid": A + layer("Sigmoid", "a", "a") + B,
    "ReLU6": A + layer("ReLU", "a", "a", "relu_param { relu6: true }") + B,
    "ELU": A + layer("ELU", "a", "a") + B,
    "Softmax": A + layer("Softmax", "a", "s") + conv("b", "s"),
    "Slice": A + layer("Slice", "a", "s t", "slice_param { slice_point: 1 }") + conv("b", "s") + conv("d", "t"),
    "Flatten": A + layer("Flatten", "a", "f") + fc("b", "f"),
    "Flatten, and its bottom": A + layer("Flatten", "a", "f") + fc("b", "f") + conv("d", "a"),
    "Reshape": A
    + layer("Reshape", "a", "f", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 6 } }")
    + conv("b", "f"),
    "products": A
    + conv("b", "in")
    + layer("Eltwise", "a b", "s", "eltwise_param { operation: PROD }")
    + conv("d", "s"),
    "a sum with data": conv("a", "in", outputs=3) + layer("Eltwise", "a in", "s") + conv("d", "s"),
    "Concat on another axis": A
    + conv("b", "in")
    + layer("Concat", "a b", "s", "concat_param { axis: 2 }")
    + conv("d", "s"),
    "Concat with data": A + layer("Concat", "a in", "s") + conv("d", "s"),
    "a Sigmoid beside a reader": A + layer("Sigmoid", "a", "s") + B + conv("d", "s"),
    "a Sigmoid in place of one of two tops": A
    + layer("Split", "a", "s t")
    + conv("b", "s")
    + layer("Sigmoid", "t", "t")
    + conv("d", "t"),
    "Flatten and ReLU in place of it": A + layer("Flatten", "a", "f") + layer("ReLU", "f", "f", name="r") + B,
    "the places of maxima": A + layer("Pooling", "a", "p q", "pooling_param { kernel_size: 2 }") + conv("b", "p"),
    "Scale along another axis": conv("a", "in", outputs=6)
    + layer("Scale", "a", "s", "scale_param { axis: 2 }", name="b")
    + conv("d", "s"),
    "InnerProduct along another axis": A + fc("b", "a", "axis: 2"),
    "convolution along another axis": conv("a", "in", outputs=6)
    + layer("Reshape", "a", "f", "reshape_param { shape { dim: 2 dim: 6 dim: 1 dim: 6 dim: 6 } }")
    + conv("b", "f", "axis: 2"),
}


@pytest.mark.parametrize("name", FIXED)
def test_channels_that_cannot_be_scaled_stay(workshop: Any, name: str) -> None:
    assert "a" not in check(load(workshop, FIXED[name]))


def test_shared_parameters_stay(workshop: Any) -> None:
    shared = 'param { name: "w" } param { name: "v" }'
    text = A + conv("b", "a", params=shared) + conv("d", "b", params=shared) + conv("e", "d")
    assert check(load(workshop, text)) == set()


def test_dead_channels_do_no_harm(workshop: Any) -> None:
    net = load(workshop, A + layer("ReLU", "a", "a") + B)
    weights = {key: np.array(array) for key, array in net.weights.items()}
    weights["a/0"][1], weights["b/0"][:, 2], weights["a/0"][3] = 0, 0, 1e-20
    check(replace(net, weights=weights))
    assert equalize(replace(net, weights={key: np.zeros_like(array) for key, array in weights.items()}), {}) == {}


def test_ranges_become_more_alike(workshop: Any) -> None:
    net = load(workshop, A + layer("ReLU", "a", "a") + B)
    weights = {**net.weights, **equalize(net, {})}

    def spread(arrays: Any) -> float:
        largest = np.abs(arrays["a/0"]).max((1, 2, 3))
        return float(largest.max() / largest.min())

    assert spread(weights) < spread(net.weights)


def test_weights_are_changed_only_if_that_is_worthwhile(workshop: Any) -> None:
    net = load(workshop, A + layer("ReLU", "a", "a") + B)
    methods = list(Method)
    one_large = {key: np.sign(array) for key, array in net.weights.items()}
    one_large["a/0"][0] *= 100
    one_large["b/0"][:, 0] /= 100
    net = replace(net, weights=one_large)
    assert easier_weights(net, methods, [], Execution())
    assert not easier_weights(net, [Method.ROUNDING], [], Execution())
    alike = replace(net, weights={key: np.ones_like(array) for key, array in net.weights.items()})
    assert not easier_weights(alike, methods, [], Execution())


def test_no_channel_exceeds_the_range_of_its_activation(workshop: Any) -> None:
    net = load(workshop, A + layer("ReLU", "a", "a") + B)
    before = net.weights["a/0"]
    before = np.abs(before).max(tuple(range(1, before.ndim)))
    largest = np.linspace(1.0, 4.0, len(before))
    changed = np.abs(equalize(net, {"b": largest})["a/0"])
    factors = changed.max(tuple(range(1, changed.ndim))) / before
    assert (largest * factors <= largest.max() * (1 + 1e-5)).all() and not np.allclose(factors, 1)
