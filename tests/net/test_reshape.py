"""Nets for inputs of other shapes, and nets with blobs whose shapes depend on the data."""

from __future__ import annotations

from typing import Any

import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.costs import CostModel
from ristretto_cli.net.reshape import reshaped, with_likely_shapes
from ristretto_cli.ops import DYNAMIC

INPUT = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 6 dim: 4 } } }\n'
CONV = (
    'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 3 } }\n'
    'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }\n'
)
SELECTED = (
    'layer { name: "i" type: "Input" top: "x" top: "sel" input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }\n'
    'layer { name: "f" type: "Filter" bottom: "x" bottom: "sel" top: "some" }\n'
)
FC = 'layer { name: "ip" type: "InnerProduct" bottom: "%s" top: "ip" inner_product_param { num_output: 3 } }\n'


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    return {top.name: top.shape for layer in net.layers for top in layer.tops}


def test_all_blobs_take_the_shape_of_the_input(workshop: Any) -> None:
    net = workshop.load(INPUT + CONV + 'layer { name: "f" type: "Flatten" bottom: "c" top: "f" }')
    other = reshaped(net, {"x": (2, 2, 5, 8)})
    assert shapes(other) == {"x": (2, 2, 5, 8), "c": (2, 3, 3, 6), "f": (2, 54)}
    assert [[blob.shape for blob in layer.bottoms] for layer in other.layers[1:]] == [
        [(2, 2, 5, 8)],
        [(2, 3, 3, 6)],
        [(2, 3, 3, 6)],
    ]
    assert (other.inputs[0].shape, other.outputs[0].shape) == ((2, 2, 5, 8), (2, 54))
    assert other.weights is net.weights
    assert [blob.storage for blob in other.outputs] == [blob.storage for blob in net.outputs]
    assert reshaped(other, {"x": (1, 2, 6, 4)}) == net


@pytest.mark.parametrize(
    ("text", "shape", "said"),
    [
        (FC % "x", (1, 2, 6, 5), '2: layer "ip" (InnerProduct), for x 1x2x6x5: its parameter 0 is 3x48, but would be '
         "3x60. Use images of one size (crop_size), or a fully convolutional net."),
        (CONV, (1, 2, 2, 4), '2: layer "c" (Convolution), for x 1x2x2x4: kernel 3x3 with dilation 1x1 is larger than '
         "the input 2x4 with padding 0x0"),
        (CONV, (1, 3, 6, 4), '2: layer "c" (Convolution), for x 1x3x6x4: its parameter 0 is 3x2x3x3, but would be '
         "3x3x3x3. Use images of one size (crop_size), or a fully convolutional net."),
    ],
)  # fmt: skip
def test_a_layer_that_a_shape_does_not_fit_is_named(
    text: str, shape: tuple[int, ...], said: str, workshop: Any
) -> None:
    with pytest.raises(RistrettoError) as caught:
        reshaped(workshop.load(INPUT + text), {"x": shape})
    assert str(caught.value) == f"net.prototxt:{said}"


def test_a_state_keeps_its_shape(workshop: Any) -> None:
    net = workshop.load("""
        layer { name: "i" type: "Input" top: "x" top: "cont" input_param { shape { dim: 2 dim: 1 dim: 3 }
                                                                         shape { dim: 2 dim: 1 } } }
        layer { name: "r" type: "RNN" bottom: "x" bottom: "cont" top: "h" recurrent_param { num_output: 2 } }
    """)
    assert shapes(reshaped(net, {"x": (5, 1, 3), "cont": (5, 1)}))["h"] == (5, 1, 2)
    with pytest.raises(RistrettoError, match=r"its state would have another shape\. Use batches of one size\.$"):
        reshaped(net, {"x": (2, 4, 3), "cont": (2, 4)})


def test_extents_after_a_filter_depend_on_the_data(workshop: Any) -> None:
    net = workshop.load(
        SELECTED + FC % "some" + 'layer { name: "s" type: "Softmax" bottom: "ip" top: "s" }\n'
        'layer { name: "t" type: "Reshape" bottom: "s" top: "t" reshape_param { shape { dim: 0 dim: 3 dim: 1 } } }\n'
        'layer { name: "l" type: "Reduction" bottom: "t" top: "l" loss_weight: 1 }'
    )
    assert shapes(net) == {
        "x": (4, 6), "sel": (4,), "some": (DYNAMIC, 6), "ip": (DYNAMIC, 3), "s": (DYNAMIC, 3), "t": (DYNAMIC, 3, 1),
        "l": (),
    }  # fmt: skip
    assert [layer.feeds_graph for layer in net.layers] == [False, True, False, False, False, False]
    assert not any(top.on_host for layer in net.layers for top in layer.tops)
    assert shapes(reshaped(net, {"some": (2, 6)}))["t"] == (2, 3, 1)
    assert shapes(with_likely_shapes(net))["t"] == (4, 3, 1)
    assert CostModel(net).macs == [0, 0, 4 * 18, 0, 0, 0]


def test_a_layer_that_all_items_must_reach_has_its_fixed_shape(workshop: Any) -> None:
    net = workshop.load(SELECTED + 'layer { name: "e" type: "Eltwise" bottom: "some" bottom: "x" top: "e" }')
    assert shapes(net)["e"] == (4, 6)
    said = r'^net\.prototxt:3: layer "e" \(Eltwise\), for some 3x6: bottom 1 has shape 4x6, bottom 0 has 3x6'
    with pytest.raises(RistrettoError, match=said):
        reshaped(net, {"some": (3, 6)})


def test_a_filter_of_a_filter_may_feed_the_graph(workshop: Any) -> None:
    net = workshop.load(
        SELECTED.replace('top: "some"', 'bottom: "sel" top: "some" top: "kept"')
        + 'layer { name: "g" type: "Filter" bottom: "some" bottom: "kept" top: "fewer" }\n'
        + FC % "fewer"
    )
    assert [layer.feeds_graph for layer in net.layers] == [False, False, True, False]
    assert shapes(net)["ip"] == (DYNAMIC, 3)


def test_a_layer_with_a_state_cannot_read_a_filter(workshop: Any) -> None:
    with pytest.raises(RistrettoError) as caught:
        workshop.load("""
            layer { name: "i" type: "Input" top: "x" top: "sel" top: "c"
                    input_param { shape { dim: 4 dim: 1 dim: 3 } shape { dim: 4 } shape { dim: 4 dim: 1 } } }
            layer { name: "f" type: "Filter" bottom: "x" bottom: "c" bottom: "sel" top: "a" top: "b" }
            layer { name: "r" type: "RNN" bottom: "a" bottom: "b" top: "h" recurrent_param { num_output: 2 } }
        """)
    assert 'layer "r" (RNN): it keeps a state, so the number of items that it reads must not vary' in str(caught.value)
