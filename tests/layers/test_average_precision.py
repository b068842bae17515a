"""Average precision, by hand."""

import numpy as np
import pytest

from ristretto_cli.layers.average_precision import ApVersion, average_precision

ELEVEN, MAX, AREA = ApVersion.ELEVEN_POINTS, ApVersion.MAX_INTEGRAL, ApVersion.INTEGRAL


def precision(right, positives, version, scores=None):
    """Of findings in the order of their scores, unless these are given."""
    scores = np.arange(len(right), 0, -1) if scores is None else scores
    return average_precision(np.array(scores, np.float32), np.array(right, bool), positives, version)


# Four objects, and five findings: right, wrong, right, wrong, right.
# precision 1, 1/2, 2/3, 2/4, 3/5; recall 1/4, 1/4, 2/4, 2/4, 3/4.
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        # recalls of 0, 0.1, 0.2 reach 1; 0.3, 0.4, 0.5 reach 2/3; 0.6, 0.7 reach 3/5; 0.8, 0.9, 1 are not reached
        (ELEVEN, (3 * 1 + 3 * (2 / 3) + 2 * (3 / 5)) / 11),
        # each new recall with the precision there
        (AREA, 1 / 4 * 1 + 1 / 4 * (2 / 3) + 1 / 4 * (3 / 5)),
        # from the end: 1/4 at max(2/4, 3/5), 1/4 at max(1/2, 2/3), and the first 1/4 at 1
        (MAX, 1 / 4 * (3 / 5) + 1 / 4 * (2 / 3) + 1 / 4 * 1),
    ],
)
def test_the_three_formulas(version, expected):
    assert precision([1, 0, 1, 0, 1], 4, version) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("version", list(ApVersion))
@pytest.mark.parametrize(
    ("right", "positives", "expected"), [([1, 1], 2, 1), ([0, 0], 2, 0), ([], 2, 0), ([0, 0], 0, 0), ([], 0, 0)]
)
def test_what_is_perfect_or_empty(version, right, positives, expected):
    assert precision(right, positives, version) == pytest.approx(expected, abs=1e-6)


# The precision rises: a step is as high as the best one from where it ends, in SSD, not from where it starts.
# precision 0, 1/2, 2/3; recall 0, 1/2, 1.
@pytest.mark.parametrize(
    ("version", "expected"),
    [(ELEVEN, 2 / 3), (AREA, 1 / 2 * (1 / 2) + 1 / 2 * (2 / 3)), (MAX, 2 / 3)],
)
def test_a_wrong_finding_before_the_right_ones(version, expected):
    assert precision([0, 1, 1], 2, version) == pytest.approx(expected, abs=1e-6)


def test_max_integral_gives_a_step_the_height_where_its_lower_recall_stands():
    # precision 1, 2/2 ... right, right, wrong, right: 1, 1, 2/3, 3/4; recall 1/3, 2/3, 2/3, 1
    assert precision([1, 1, 0, 1], 3, MAX) == pytest.approx(1 / 3 * (3 / 4) + 1 / 3 * 1 + 1 / 3 * 1, abs=1e-6)


def test_findings_are_ordered_by_score_and_equal_ones_stay_in_order():
    assert precision([0, 1], 1, AREA, scores=[0.1, 0.9]) == 1
    assert precision([0, 1], 1, AREA, scores=[0.5, 0.5]) == 0.5


def test_a_recall_of_seven_tenths_is_not_the_seventh_point():
    # In float32, 7 / 10 is less than 0.7 as a double: of 11 points 7 are reached, not 8.
    assert precision([1] * 7, 10, ELEVEN) == pytest.approx(7 / 11, abs=1e-6)
