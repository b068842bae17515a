"""ContrastiveLoss."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS

A, B = [[3, 0], [0, 1], [0, 0]], [[0, 4], [0, 0], [0, 0]]  # distances 5, 1 and 0


def loss(bench, settings, similar, a=A, b=B):
    (top,) = bench.run("ContrastiveLoss", f"contrastive_loss_param {{ {settings} }}", [a, b, similar])
    assert top.shape == ()
    return float(top)


def test_similar_pairs_cost_their_squared_distance(bench):
    assert loss(bench, "", [1, 1, 1]) == pytest.approx((25 + 1 + 0) / 6)


def test_others_cost_the_square_of_what_they_lack_of_the_margin(bench):
    assert loss(bench, "margin: 3", [0, 0, 0]) == pytest.approx((0 + 4 + 9) / 6)
    assert loss(bench, "", [0, 0, 0]) == pytest.approx(1 / 6)  # the margin is 1


def test_the_legacy_version_takes_the_squared_distance_from_the_margin(bench):
    assert loss(bench, "margin: 3 legacy_version: true", [0, 0, 0]) == pytest.approx((0 + 2 + 3) / 6)


def test_a_flag_is_cut_off_to_a_whole_number(bench):
    assert loss(bench, "margin: 3", [0.9, -0.9, -1]) == pytest.approx((0 + 4 + 0) / 6)
    assert loss(bench, "margin: 3", [0, 2, 1.5]) == pytest.approx((0 + 1 + 0) / 6)


def test_trailing_axes_of_one_are_as_none(bench):
    a, b = [[[[3]], [[0]]]], [[[[0]], [[4]]]]
    assert loss(bench, "", [[[[1]]]], a, b) == 12.5


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(2, 3), (3, 3), (2,)], "differ on axis 0"),
        ([(2, 3), (2, 4), (2,)], "2x3 and 2x4 are not vectors of the same length"),
        ([(2, 3, 2), (2, 6), (2,)], "2x3x2 and 2x6 are not vectors"),
        ([(2, 3), (2, 3), (3,)], "3 similarity flags (shape 3) for a batch of 2"),
        ([(2, 3), (2, 3), (2, 2)], "4 similarity flags"),
        ([(1, 2, 1, 1, 1), (1, 2), (1,)], "takes at most 4"),
    ],
)
def test_what_does_not_fit_is_refused(bench, shapes, said):
    assert said in bench.refusal("ContrastiveLoss", "", shapes)


def test_it_is_a_loss_of_three_bottoms():
    layer_type = LAYERS.get("ContrastiveLoss")
    assert (layer_type.is_loss, layer_type.bottoms) == (True, (3, 3))
