"""The distortion of predictions: which blobs are compared, and how."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.quantize.distortion import Prediction, predictions_of

from ..conftest import NET

DATA = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }\n'
LABELS = 'layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 2 dim: 4 dim: 4 } } }\n'
CONV = """
    layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
            convolution_param { num_output: 5 kernel_size: 1 } }
"""


def test_an_accuracy_is_computed_from_logits(two_classes: Any, workshop: Any) -> None:
    two_classes()
    net = workshop.load(NET)
    for score, layer in (("accuracy", "acc"), ("loss", "loss")):
        (found,) = predictions_of(net, score)
        assert (net.layers[found.layer].name, found.bottom, found.class_axis) == (layer, 0, 1)


def test_a_softmax_in_between_is_passed_over(workshop: Any) -> None:
    softmax = 'layer { name: "p" type: "Softmax" bottom: "conv" top: "p" softmax_param { axis: -3 } }\n'
    accuracy = 'layer { name: "acc" type: "Accuracy" bottom: "p" bottom: "label" top: "acc" }'
    net = workshop.load(DATA + LABELS + CONV + softmax + accuracy)
    (found,) = predictions_of(net, "acc")
    assert (net.layers[found.layer].name, found.class_axis) == ("p", 1)
    values = np.arange(2 * 5 * 4 * 4, dtype=np.float32).reshape(2, 5, 4, 4)
    assert found.rows(values).shape == (32, 5)
    assert found.rows(values)[0].tolist() == values[0, :, 0, 0].tolist()


def test_other_losses_are_compared_value_by_value(workshop: Any) -> None:
    loss = 'layer { name: "e" type: "EuclideanLoss" bottom: "conv" bottom: "x2" top: "e" }'
    other = CONV.replace('"conv"', '"x2"')
    net = workshop.load(DATA + CONV + other + loss)
    found = predictions_of(net, "e")
    assert [(net.layers[each.layer].name, each.bottom, each.class_axis) for each in found] == [
        ("e", 0, None),
        ("e", 1, None),
    ]


def test_a_score_without_weights_has_no_distortion(workshop: Any) -> None:
    net = workshop.load(DATA + 'layer { name: "s" type: "Reduction" bottom: "x" top: "s" }')
    with pytest.raises(RistrettoError, match='"s" does not depend on weights'):
        predictions_of(net, "s")


LOGITS = Prediction(0, 0, 1)
VALUES = Prediction(0, 0, None)


def rows(*values: Any) -> list[Any]:
    return [np.array(values, np.float32)]


def test_the_distortion_of_logits_is_the_divergence_of_probabilities() -> None:
    even, skewed = rows([0.0, 0.0]), rows([math.log(3.0), 0.0])
    assert LOGITS.distortion(even, even) == 0
    # Of 1/2 and 1/2 against 3/4 and 1/4
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert LOGITS.distortion(skewed, even) == pytest.approx(expected)
    shifted = rows([1000.0, 1000.0])
    assert LOGITS.distortion(shifted, even) == pytest.approx(0, abs=1e-12)


def test_the_distortion_of_values_is_relative_to_their_energy() -> None:
    assert VALUES.distortion(rows([1.0], [5.0]), rows([1.0], [3.0])) == pytest.approx(4 / 10)
    assert VALUES.distortion(rows([2.0]), rows([0.0])) == 4


def test_values_that_are_not_finite_are_infinitely_distorted() -> None:
    assert LOGITS.distortion(rows([math.nan, 0.0]), rows([0.0, 0.0])) == math.inf


def test_of_many_items_a_sample_is_compared() -> None:
    assert VALUES.rows(np.zeros((3, 2**16), np.float32)).shape == (2**16, 1)
