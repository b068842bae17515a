"""Anchors."""

import numpy as np
import pytest

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.anchors import anchors_of, shifted


def test_they_are_those_that_faster_r_cnn_was_published_with():
    boxes = anchors_of(16, (0.5, 1, 2), (8, 16, 32), ties_to_even=True)
    assert boxes.tolist() == [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]


def test_halves_are_rounded_up_or_to_the_even_number():
    # A base of 1 with ratio 4 is 0.5 wide: 0 or 1 pixel, and so 0 or 4 high.
    assert anchors_of(1, (4,), (2,), ties_to_even=True).tolist() == [[0.5, 0.5, -0.5, -0.5]]
    assert anchors_of(1, (4,), (2,), ties_to_even=False).tolist() == [[-0.5, -3.5, 0.5, 3.5]]


def test_each_place_has_all_of_them_row_by_row():
    boxes = shifted(np.array([[0, 0, 1, 1], [0, 0, 2, 2]], np.float32), 2, 2, 16)
    assert boxes[:, :2].tolist() == [[0, 0], [0, 0], [16, 0], [16, 0], [0, 16], [0, 16], [16, 16], [16, 16]]
    assert boxes[-1].tolist() == [16, 16, 18, 18]


@pytest.mark.parametrize(
    ("ratios", "scales", "what"),
    [
        ((), (8,), "each ratio must be more than 0"),
        ((1,), (), "each scale must be more than 0"),
        ((1,), (-8,), "each scale must be more than 0"),
        ((float("nan"),), (8,), "each ratio must be more than 0"),
        ((1,), (1e38,), "too large for float32"),
        ((1e-300,), (1,), "too large for float32"),
        ((1,) * 2049, (1,) * 2049, "4198401 anchors are too many"),
    ],
)
def test_what_makes_no_box_is_refused(ratios, scales, what):
    with pytest.raises(LayerError, match=what):
        anchors_of(16, ratios, scales, ties_to_even=True)


def test_maps_with_too_many_places_are_refused():
    with pytest.raises(LayerError, match="are too many"):
        shifted(np.zeros((9, 4), np.float32), 1000, 1000, 16)
