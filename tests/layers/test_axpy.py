"""Axpy."""

import numpy as np
import pytest

X = np.arange(4).reshape(1, 2, 1, 2)
Y = np.full((1, 2, 1, 2), 100)


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1, 1)])
def test_it_is_a_x_plus_y_with_one_a_for_each_plane(bench, shape):
    (top,) = bench.run("Axpy", "", [np.array([10, -1]).reshape(shape), X, Y])
    assert top.tolist() == [[[[100, 110]], [[98, 97]]]]


@pytest.mark.parametrize("first", [(1, 3), (1,), (1, 2, 1, 2), (2, 2)])
def test_another_number_of_factors_is_refused(bench, first):
    assert "must have one number per plane of 1x2x1x2" in bench.refusal("Axpy", "", [first, X.shape, X.shape])


def test_summands_of_different_shapes_are_refused(bench):
    assert "1x2x1x2 and 1x2x2x1" in bench.refusal("Axpy", "", [(1, 2), (1, 2, 1, 2), (1, 2, 2, 1)])
