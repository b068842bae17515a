"""BatchReindex."""

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError

ITEMS = [[1, 2], [3, 4], [5, 6]]


def test_indices_pick_items_in_their_order(bench):
    (top,) = bench.run("BatchReindex", "", [ITEMS, [2, 0, 0, 1]])
    assert top.tolist() == [[5, 6], [1, 2], [1, 2], [3, 4]]


def test_fractions_are_cut_off(bench):
    (top,) = bench.run("BatchReindex", "", [ITEMS, [0.9, 2.5]])
    assert top.tolist() == [[1, 2], [5, 6]]


@pytest.mark.parametrize("index", [3, -1, -0.5, np.nan, np.inf])
def test_an_index_that_is_no_item_is_refused_when_it_turns_up(bench, index):
    with pytest.raises(RistrettoError, match="an index into 3 entries is negative, too large or not a number"):
        bench.run("BatchReindex", "", [ITEMS, [0, index]])


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(3, 2), (2, 1)], "the indices, has shape 2x1"),
        ([(3, 2), ()], "the indices, has shape scalar"),
        ([(), (2,)], "its first bottom is a scalar"),
        ([(3, 100000), (100000,)], "has too many elements"),
    ],
)
def test_bottoms_that_do_not_fit_are_refused(bench, shapes, said):
    assert said in bench.refusal("BatchReindex", "", shapes)
