"""One pass and its keys: which version of a blob stands under which name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.errors import RistrettoErrors
from ristretto_cli.scoring.all_blobs import OnePass

INPUT = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
X = {"x": np.array([[3, -8]], np.float32)}
CHAIN = """
    layer { name: "double" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
    layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
    layer { name: "plus" type: "Power" bottom: "y" top: "y" power_param { shift: 1 } }
"""


def one_pass(net: Any, feeds: Any = None, **settings: Any) -> dict[str, Any]:
    results = OnePass(net, rng=np.random.default_rng(0), **settings).run(X if feeds is None else feeds)
    return {key: array.tolist() for key, array in results.items()}


def test_each_version_of_a_blob_has_a_key(workshop: Any) -> None:
    assert one_pass(workshop.load(INPUT + CHAIN)) == {
        "y@double": [[6, -16]],
        "y@relu": [[6, 0]],
        "y": [[7, 1]],
    }


def test_what_a_later_layer_changed_in_place_stands_under_end(workshop: Any) -> None:
    # "flat" is the memory of "y" under another name.
    layers = """
        layer { name: "double" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
        layer { name: "flat" type: "Flatten" bottom: "y" top: "flat" }
        layer { name: "relu" type: "ReLU" bottom: "flat" top: "flat" }
    """
    assert one_pass(workshop.load(INPUT + layers)) == {
        "y": [[6, -16]],
        "y@end": [[6, 0]],
        "flat@flat": [[6, -16]],
        "flat": [[6, 0]],
    }


def test_an_input_has_only_its_final_value_where_it_is_changed(workshop: Any) -> None:
    relu = 'layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }'
    layers = 'layer { name: "s" type: "Split" bottom: "x" top: "a" }' + relu.replace('"x"', '"a"')
    assert one_pass(workshop.load(INPUT + layers)) == {
        "x@end": [[3, 0]],
        "a@s": [[3, -8]],
        "a": [[3, 0]],
    }


def test_a_layer_in_place_on_a_fed_blob_stands_under_its_name(workshop: Any) -> None:
    relu = 'layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }'
    assert one_pass(workshop.load(INPUT + relu)) == {"x": [[3, 0]]}


def test_only_the_blobs_requested_are_returned(workshop: Any) -> None:
    layers = CHAIN + 'layer { name: "z" type: "Power" bottom: "y" top: "z" }'
    assert one_pass(workshop.load(INPUT + layers), blobs=("z",)) == {"z": [[7, 1]]}


def test_every_name_that_is_no_blob_is_reported(workshop: Any) -> None:
    net = workshop.load(INPUT + CHAIN.replace('"y"', '"score"'))
    with pytest.raises(RistrettoErrors) as refused:
        one_pass(net, blobs=("scor", "nothing"))
    assert str(refused.value).splitlines() == [
        'net.prototxt: the net has no blob "scor". Did you mean score?',
        'net.prototxt: the net has no blob "nothing"',
    ]


def test_the_sum_of_losses_has_its_own_key(workshop: Any) -> None:
    layers = """
        layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 1 } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" loss_weight: 2 }
    """
    feeds = {"x": np.array([[1, 1]], np.float32), "label": np.array([0], np.float32)}
    results = one_pass(workshop.load(INPUT + layers), feeds)
    assert results["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert results["@total_loss"] == pytest.approx(2 * np.log(2), abs=1e-6)


def test_parameters_that_the_pass_changes_stand_under_param_end(workshop: Any) -> None:
    layers = """
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 } } }
        layer { name: "norm" type: "BatchNorm" bottom: "x" top: "y" }
    """
    weights = {"norm": [[0], [0], [0]]}
    feeds = {"x": np.array([[2], [6]], np.float32)}
    train = one_pass(workshop.load(layers, weights, TRAIN), feeds)
    # mean 4; the variance of a sample of two is 8
    assert {key: value for key, value in train.items() if key != "y"} == {
        "param_end:norm/0": [4],
        "param_end:norm/1": [8],
        "param_end:norm/2": [1],
    }
    assert one_pass(workshop.load(layers, weights), feeds).keys() == {"y"}


def test_data_layers_blobs_are_returned(workshop: Any) -> None:
    data = 'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 dim: 2 } } }'
    assert one_pass(workshop.load(data)) == {"x": [[3, -8]]}
