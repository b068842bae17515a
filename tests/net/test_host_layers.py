"""Nets with host layers: which layers may read which blobs, and what remains in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import in_graph
from ristretto_cli.ops import DYNAMIC
from ristretto_cli.scoring.engine import record

SHAPES = "input_param { shape { dim: 3 dim: 2 } shape { dim: 3 } }"
INPUTS = f'layer {{ name: "i" type: "Input" top: "x" top: "sel" {SHAPES} }}\n'
FILTER = 'layer { name: "f" type: "Filter" bottom: "x" bottom: "sel" top: "some" }\n'


def test_the_extent_that_depends_on_the_data_varies(workshop: Any) -> None:
    net = workshop.load(INPUTS + FILTER)
    (some,) = net.outputs
    assert (some.name, some.shape, some.on_host) == ("some", (DYNAMIC, 2), True)
    assert [(layer.name, layer.on_host) for layer in net.layers] == [("i", False), ("f", True)]
    assert in_graph(net.inputs) == net.inputs


def test_a_host_layer_can_read_another_one_and_the_graphs_blobs(workshop: Any) -> None:
    text = 'layer { name: "g" type: "Filter" bottom: "some" bottom: "sel" top: "fewer" }'
    (fewer,) = workshop.load(INPUTS + FILTER + text).outputs
    assert fewer.shape == (DYNAMIC, 2)


def test_silence_reads_anything(workshop: Any) -> None:
    net = workshop.load(INPUTS + FILTER + 'layer { name: "s" type: "Silence" bottom: "some" bottom: "x" }')
    assert net.outputs == ()


def test_a_walk_leaves_them_out_and_has_what_they_read(workshop: Any) -> None:
    text = 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }\n'
    net = workshop.load(INPUTS + text + FILTER.replace('"x"', '"y"'))
    _, run = record(net, rng=np.random.default_rng(0))
    assert list(run.final) == ["x", "sel", "y"]
    assert [value.shape for value in run.inputs[-1]] == [(3, 2), (3,)]
    assert run.outputs[-1] == ()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ('name: "a" type: "Accuracy" bottom: "x" bottom: "some" top: "y"',
         'layer "a" (Accuracy): 6 labels (shape 3x2) for 3 predictions (scores of shape 3x2, classes on axis 1). '
         "Use one label per prediction, or set axis to that of the classes."),
        ('name: "g" type: "Filter" bottom: "some" bottom: "sel" top: "some"',
         'layer "g" (Filter): in-place computation is not supported. Use different names for top and bottom.'),
        ('name: "g" type: "Filter" bottom: "x" bottom: "sel" top: "some"',
         'layer "g" (Filter): its top "some" is also produced by another layer. Rename one of them.'),
        ('name: "g" type: "Filter" bottom: "x" bottom: "sel" top: "y" loss_weight: 1',
         'layer "g" (Filter): its top "y" (?x2) cannot be a loss. Remove loss_weight.'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_line(workshop: Any, layer: str, said: str) -> None:
    with pytest.raises(RistrettoError) as refused:
        workshop.load(INPUTS + FILTER + f"layer {{ {layer} }}")
    assert str(refused.value) == f"net.prototxt:3: {said}"


def test_what_is_after_a_refused_layer_is_not_checked(workshop: Any) -> None:
    with pytest.raises(RistrettoError) as refused:
        workshop.load(INPUTS + FILTER.replace('"some"', '"some" top: "more"') + 'layer { type: "ReLU" bottom: "some" }')
    assert str(refused.value).count("\n") == 0
    assert "it has 2 tops for 1 bottoms" in str(refused.value)
