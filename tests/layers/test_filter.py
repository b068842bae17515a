"""Filter."""

import numpy as np
import pytest

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.ops import DYNAMIC

ROWS = [[1, 2], [3, 4], [5, 6]]


def test_items_pass_whose_selector_is_not_zero(bench):
    (top,) = bench.run("Filter", "", [ROWS, [2, 0, -0.5]])
    assert top.tolist() == [[1, 2], [5, 6]]


def test_each_bottom_is_filtered_by_the_last_one(bench):
    tops = bench.run("Filter", "", [ROWS, [7, 8, 9], [[[0]], [[1]], [[0]]]], tops=2)
    assert [top.tolist() for top in tops] == [[[3, 4]], [8]]


def test_a_selector_of_nan_lets_pass_and_one_of_minus_zero_does_not(bench):
    (top,) = bench.run("Filter", "", [[1, 2], [np.nan, -0.0]])
    assert top.tolist() == [1]


def test_where_nothing_passes_there_are_no_items(bench):
    (top,) = bench.run("Filter", "", [ROWS, [0, 0, 0]])
    assert top.shape == (0, 2)


@pytest.mark.parametrize(
    ("shapes", "tops", "said"),
    [
        ([(5, 3), (5, 2), (5,)], 1, "it has 1 tops for 2 bottoms and the selector"),
        ([(5, 3), (5, 2)], 1, "the selector, has shape 5x2"),
        ([(5, 3), ()], 1, "the selector, has shape scalar"),
        ([(5, 3), (4, 1)], 1, "a bottom of shape 5x3 and a selector of 4 items do not match"),
        ([(), (1,)], 1, "a bottom of shape scalar and a selector of 1 items do not match"),
        ([(), (DYNAMIC,)], 1, "a bottom of shape scalar and a selector of ? items do not match"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(bench, shapes, tops, said):
    assert said in bench.refusal("Filter", "", shapes, tops=tops)


def test_extents_that_vary_are_compared_when_they_are_known(bench):
    layer = bench.layer("Filter", "", bottoms=2)
    kind = LAYERS.get("Filter")
    assert kind.shapes(layer, [(DYNAMIC, 2), (3,)]) == [(DYNAMIC, 2)]
    compute = kind.start(layer)
    assert compute([np.ones((3, 2), np.float32), np.ones(3, np.float32)])[0].shape == (3, 2)
    with pytest.raises(LayerError, match="a bottom of shape 2x2 and a selector of 3 items do not match"):
        compute([np.ones((2, 2), np.float32), np.ones(3, np.float32)])
