"""EuclideanLoss."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


def loss(bench, a, b):
    (top,) = bench.run("EuclideanLoss", "", [a, b])
    assert top.shape == ()
    return float(top)


def test_it_is_half_the_mean_over_the_batch_of_squared_distances(bench):
    # (1 + 4) and (0 + 9), over 2 * 2
    assert loss(bench, [[1, 2], [3, 4]], [[0, 0], [3, 1]]) == 3.5


def test_equal_bottoms_cost_nothing(bench):
    assert loss(bench, [[1, 2]], [[1, 2]]) == 0


def test_targets_may_have_another_shape_with_as_many_values(bench):
    assert loss(bench, [[1], [2]], [0, 0]) == 1.25
    assert loss(bench, np.ones((2, 2, 1, 3)), np.zeros((2, 6))) == 3


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(2, 3), (3, 2)], "2x3 and 3x2 differ on axis 0"),
        ([(2, 3), (2, 4)], "2x3 and 2x4 have different numbers of values"),
        ([(), ()], "scalar and scalar differ on axis 0"),
        ([(1, 1, 1, 1, 2), (1, 2)], "1x1x1x1x2 has 5 axes, but this loss takes at most 4"),
    ],
)
def test_what_does_not_fit_is_refused(bench, shapes, said):
    assert said in bench.refusal("EuclideanLoss", "", shapes)


def test_a_target_may_have_more_axes_than_four(bench):
    assert loss(bench, [[1, 2]], [[[[[1, 0]]]]]) == 2


def test_it_is_a_loss():
    assert LAYERS.get("EuclideanLoss").is_loss
