"""Convolutions and inner products as matrix products of rows of inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.corrections import linear_layers
from ristretto_cli.corrections.linear_layers import linear_layer
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.engine import compile_net

INPUT = 'layer { name: "in" type: "Input" top: "in" input_param { shape { %s } } }\n'


def net_of(workshop: Any, extents: tuple[int, ...], layer: str) -> Net:
    shape = " ".join(f"dim: {extent}" for extent in extents)
    fillers = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    return workshop.load(INPUT % shape + layer.replace("FILLERS", fillers))


def outputs_of(net: Net, values: Any) -> Any:
    top = net.layers[-1].tops[0].name
    runner = compile_net(net, lambda run, ops: {"top": run.final[top]}, rng=np.random.default_rng(0))
    return runner.run({"in": values})["top"]


def products(net: Net, values: Any) -> Any:
    """The outputs (N, C) of the sampled rows."""
    layer = net.layers[-1]
    linear = linear_layer(layer)
    assert linear is not None
    rows = linear.rows(values, np.random.default_rng(3)).astype(np.float64)
    matrices = linear.matrices(net.weights[layer.params[0].key].reshape(layer.params[0].shape))
    found = rows @ matrices.transpose(0, 2, 1)  # (G, N, O)
    found = found.transpose(1, 0, 2).reshape(found.shape[1], -1)
    if len(layer.params) > 1:
        found = found + net.weights[layer.params[1].key].ravel()
    np.testing.assert_array_equal(
        linear.as_stored(matrices), net.weights[layer.params[0].key].reshape(layer.params[0].shape)
    )
    return found


CONVOLUTIONS = {
    "plain": ((2, 3, 6, 7), "kernel_size: 3"),
    "stride": ((2, 3, 7, 9), "kernel_size: 3 stride_h: 2 stride_w: 3"),
    "padding": ((2, 3, 5, 6), "kernel_h: 3 kernel_w: 2 pad_h: 1 pad_w: 2 stride: 2"),
    "one-sided padding": ((2, 3, 5, 6), "kernel_size: 3 pad_t: 1 pad_l: 0 pad_b: 0 pad_r: 2"),
    "dilation": ((2, 3, 9, 8), "kernel_size: 3 dilation: 2 pad: 1 stride: 2"),
    "groups": ((2, 6, 5, 5), "kernel_size: 2 group: 2"),
    "depthwise": ((2, 4, 5, 5), "kernel_size: 3 group: 4"),
    "one axis": ((2, 3, 9), "kernel_size: 3 stride: 2"),
    "three axes": ((2, 2, 4, 5, 4), "kernel_size: 2 pad: 1 stride: 2"),
    "no axis": ((5, 3), "kernel_size: 1"),
    "later channel axis": ((2, 3, 2, 5, 6), "kernel_size: 2 axis: 2"),
    "no bias": ((2, 3, 4, 4), "kernel_size: 2 bias_term: false"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rows_times_weights_are_the_outputs_of_a_convolution(
    name: str, workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    extents, settings = CONVOLUTIONS[name]
    monkeypatch.setattr(linear_layers, "PLACES", 10**6)
    net = net_of(
        workshop,
        extents,
        'layer { name: "c" type: "Convolution" bottom: "in" top: "c" '
        f"convolution_param {{ num_output: 4 FILLERS {settings} }} }}",
    )
    values = np.random.default_rng(0).normal(size=extents).astype(np.float32)
    top = outputs_of(net, values)
    axis = len(extents) - 3 if name == "later channel axis" else 1
    expected = np.moveaxis(top, axis, -1).reshape(-1, 4)
    found = products(net, values)
    assert found.shape == expected.shape
    # The places of an image come in any order.
    images = expected.shape[0] // int(np.prod(top.shape[axis + 1 :]))
    for ours, theirs in zip(found.reshape(images, -1, 4), expected.reshape(images, -1, 4), strict=True):
        ours, theirs = ours[np.lexsort(ours.T.round(3))], theirs[np.lexsort(theirs.T.round(3))]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_depthwise_layer_type(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_layers, "PLACES", 10**6)
    text = (
        'layer { name: "c" type: "ConvolutionDepthwise" bottom: "in" top: "c" '
        "convolution_param { num_output: 4 FILLERS kernel_size: 2 } }"
    )
    net = net_of(workshop, (2, 4, 3, 3), text)
    values = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    expected = outputs_of(net, values).transpose(0, 2, 3, 1).reshape(-1, 4)
    np.testing.assert_allclose(np.sort(products(net, values), 0), np.sort(expected, 0), rtol=1e-4, atol=1e-4)


def test_few_places_of_each_image_are_sampled(workshop: Any) -> None:
    net = net_of(
        workshop,
        (3, 1, 12, 12),
        'layer { name: "c" type: "Convolution" bottom: "in" top: "c" '
        "convolution_param { num_output: 1 FILLERS kernel_size: 1 } }",
    )
    linear = linear_layer(net.layers[-1])
    assert linear is not None
    values = np.arange(3 * 144, dtype=np.float32).reshape(3, 1, 12, 12)
    rows = linear.rows(values, np.random.default_rng(1)).reshape(3, -1)
    assert rows.shape == (3, linear_layers.PLACES)
    for image, places in enumerate(rows):
        assert len(set(places)) == len(places)
        assert set(places // 144) == {image}
    assert len({tuple(places % 144) for places in rows}) == 3
    np.testing.assert_array_equal(rows, linear.rows(values, np.random.default_rng(1)).reshape(3, -1))


@pytest.mark.parametrize("transpose", ["true", "false"])
@pytest.mark.parametrize(("extents", "axis"), [((4, 3, 2, 2), 1), ((4, 3, 5), 2), ((4, 3, 5), -1), ((2, 3), 0)])
def test_inner_products(workshop: Any, extents: tuple[int, ...], axis: int, transpose: str) -> None:
    net = net_of(
        workshop,
        extents,
        'layer { name: "c" type: "InnerProduct" bottom: "in" top: "c" '
        f"inner_product_param {{ num_output: 4 FILLERS axis: {axis} transpose: {transpose} }} }}",
    )
    values = np.random.default_rng(0).normal(size=extents).astype(np.float32)
    np.testing.assert_allclose(products(net, values), outputs_of(net, values).reshape(-1, 4), rtol=1e-4, atol=1e-4)
    linear = linear_layer(net.layers[-1])
    assert linear is not None and linear.output_axis == axis % len(extents)


def test_other_layers_are_no_products(workshop: Any) -> None:
    net = net_of(
        workshop,
        (2, 3, 4, 4),
        'layer { name: "c" type: "Deconvolution" bottom: "in" top: "c" '
        "convolution_param { num_output: 4 FILLERS kernel_size: 2 } }",
    )
    assert linear_layer(net.layers[-1]) is None
