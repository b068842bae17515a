"""Softmax."""

import numpy as np
import pytest

LOGARITHMS = np.log([[1, 3], [1, 1]])


def test_along_the_classes(bench):
    (top,) = bench.run("Softmax", "", [LOGARITHMS])
    np.testing.assert_allclose(top, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, -2])
def test_along_another_axis(bench, axis):
    (top,) = bench.run("Softmax", f"softmax_param {{ axis: {axis} }}", [LOGARITHMS])
    np.testing.assert_allclose(top, [[0.5, 0.75], [0.5, 0.25]], rtol=1e-6)


def test_an_axis_that_there_is_not_is_refused(bench):
    assert "axis 1 is out of range" in bench.refusal("Softmax", "", [(3,)])
