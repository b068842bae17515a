"""HingeLoss."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS

# Row 0, label 0: 1 - 0.5, 1 + 0.25, nothing. Row 1, label 1: 1 + 1, 1 + 3, 1 + 0.
SCORES, LABELS = [[0.5, 0.25, -1], [1, -3, 0]], [0, 1]


def loss(bench, settings, scores=SCORES, labels=LABELS):
    (top,) = bench.run("HingeLoss", settings, [scores, labels])
    assert top.shape == ()
    return float(top)


def test_l1_sums_what_each_class_lacks_of_its_margin_of_one(bench):
    assert loss(bench, "") == (0.5 + 1.25 + 2 + 4 + 1) / 2
    assert loss(bench, "hinge_loss_param { norm: L1 }") == loss(bench, "")


def test_l2_sums_the_squares(bench):
    assert loss(bench, "hinge_loss_param { norm: L2 }") == (0.25 + 1.5625 + 4 + 16 + 1) / 2


def test_labels_are_cut_off_towards_zero(bench):
    assert loss(bench, "", labels=[0.9, 1.9]) == loss(bench, "")


def test_trailing_axes_belong_to_the_classes(bench):
    scores = [[[[0.5]], [[0.25]], [[-1]]], [[[1]], [[-3]], [[0]]]]
    assert loss(bench, "", scores=scores, labels=[[[[0]]], [[[1]]]]) == loss(bench, "")


def test_a_label_without_a_class_is_like_no_label(bench):
    assert loss(bench, "", scores=[[0.5, -2]], labels=[7]) == 1.5


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(2, 3), (3,)], "differ on axis 0"),
        ([(2, 3), (2, 2)], "4 labels (shape 2x2) for a batch of 2"),
        ([(1, 1, 1, 1, 2), (1,)], "takes at most 4"),
    ],
)
def test_what_does_not_fit_is_refused(bench, shapes, said):
    assert said in bench.refusal("HingeLoss", "", shapes)


def test_it_is_a_loss():
    assert LAYERS.get("HingeLoss").is_loss
