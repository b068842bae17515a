"""Filter."""

import pytest


@pytest.mark.parametrize(
    ("shapes", "tops", "said"),
    [
        ([(5, 3), (5,)], 1, "how many items pass it depends on the data"),
        ([(5, 3), (5, 2), (5, 1, 1)], 2, "how many items pass it depends on the data"),
        ([(5, 3), (5, 2), (5,)], 1, "it has 1 tops for 2 bottoms and the selector"),
        ([(5, 3), (5, 2)], 1, "the selector, has shape 5x2"),
        ([(5, 3), ()], 1, "the selector, has shape scalar"),
        ([(5, 3), (4, 1)], 1, "a bottom of shape 5x3 and a selector of 4 items do not match"),
        ([(), (1,)], 1, "a bottom of shape scalar and a selector of 1 items do not match"),
    ],
)
def test_it_is_refused_for_what_is_wrong_with_it_or_because_its_shape_depends_on_the_data(bench, shapes, tops, said):
    assert said in bench.refusal("Filter", "", shapes, tops=tops)
