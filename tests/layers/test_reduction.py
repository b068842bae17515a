"""Reduction."""

import pytest

X = [[[1, -2, 3], [4, 5, -6]]]  # (1, 2, 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", 5),
        ("operation: ASUM", 21),
        ("operation: SUMSQ", 91),
        ("operation: MEAN", 5 / 6),
        ("axis: 1", [5]),
        ("axis: 2", [[2, 3]]),
        ("axis: -1 operation: ASUM", [[6, 15]]),
        ("axis: -1 operation: SUMSQ coeff: 0.5", [[7, 38.5]]),
        ("axis: -1 operation: MEAN coeff: -3", [[-2, -3]]),
        ("coeff: 0", 0),
    ],
)
def test_the_last_axes_become_one_number(bench, settings, expected):
    (top,) = bench.run("Reduction", f"reduction_param {{ {settings} }}", [X])
    assert top.tolist() == pytest.approx(expected) if isinstance(expected, float) else top.tolist() == expected


def test_an_axis_that_is_not_there_is_refused(bench):
    assert "axis 3 is out of range" in bench.refusal("Reduction", "reduction_param { axis: 3 }", [(1, 2, 3)])
