"""SmoothL1Loss."""

import pytest

VALUES, TARGETS = [[0.5, 3], [0, 0]], [[0, 0], [0, -1]]  # differences 0.5 and 3, 0 and 1


def loss(bench, settings, *bottoms):
    (top,) = bench.run("SmoothL1Loss", f"smooth_l1_loss_param {{ {settings} }}", bottoms)
    assert top.shape == ()
    return float(top)


def test_small_differences_count_squared_and_large_ones_straight(bench):
    # 0.125 + 2.5 + 0 + 0.5, for two rows
    assert loss(bench, "", VALUES, TARGETS) == 1.5625


def test_sigma_moves_the_bend_to_its_inverse_square(bench):
    # With sigma 2 the bend is at 0.25: 0.375 + 2.875 + 0 + 0.875.
    assert loss(bench, "sigma: 2", VALUES, TARGETS) == 2.0625
    assert loss(bench, "sigma: 2", [[0.125]], [[0]]) == 0.03125


def test_one_weight_is_for_the_difference_and_one_for_its_loss(bench):
    inside, outside = [[2, 0], [1, 1]], [[1, 1], [1, -4]]
    # Differences 1, 0, 0 and 1; losses 0.5, 0, 0 and -2.
    assert loss(bench, "", VALUES, TARGETS, inside, outside) == -0.75


@pytest.mark.parametrize(
    ("settings", "shapes", "what"),
    [
        ("", [(2, 3)] * 3, "Use both or neither"),
        ("", [(2, 3), (2, 4)], "2x3, 2x4 have different numbers of values"),
        ("", [(2, 3), (2, 3), (2, 3), (2, 2)], "different numbers of values"),
        ("", [(2, 3), (3, 2)], "differ on axis 0"),
        ("", [(2, 1, 1, 1, 3)] * 2, "5 axes"),
        ("sigma: 0", [(2, 3)] * 2, "sigma must be 1e-09 to 1e+09, not 0"),
        ("sigma: nan", [(2, 3)] * 2, "sigma must be"),
        ("sigma: inf", [(2, 3)] * 2, "sigma must be"),
    ],
)
def test_what_does_not_fit_is_refused(bench, settings, shapes, what):
    assert what in bench.refusal("SmoothL1Loss", f"smooth_l1_loss_param {{ {settings} }}", shapes)


def test_it_is_a_loss_of_the_net(workshop):
    net = workshop.load(
        """
        layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "loss" type: "SmoothL1Loss" bottom: "x" bottom: "t" top: "loss" }
        """
    )
    assert net.layers[-1].loss_weights == (1.0,)
