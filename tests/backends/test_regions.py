"""Boxes, regions, and planes of another size; the layers that call them are tested against loops."""

import numpy as np
import pytest

BOXES = [[0, 0, 2, 2], [0, 0, 2, 1], [4, 4, 6, 6]]  # the first two overlap by a half


def nms(compute, boxes, scores, *, top_k=9, least=-1.0, most=0.4):
    """Scores, places and marks as lists, of one image."""
    settings = {"top_k": top_k, "min_score": least, "max_overlap": most}
    results = compute(lambda ops, b, s: ops.nms(b, s, **settings), [boxes], [scores])
    return [result[0].tolist() for result in results]


def test_nms_sorts_and_marks_what_is_kept(compute):
    scores, places, kept = nms(compute, [BOXES], [[0.25, 0.5, 0.125]])
    assert scores == [[0.5, 0.25, 0.125]]
    assert places == [[1, 0, 2]]
    assert kept == [[1, 0, 1]]


def test_nms_keeps_boxes_that_overlap_by_no_more_than_they_may(compute):
    assert nms(compute, [BOXES], [[0.25, 0.5, 0.125]], most=0.5)[2] == [[1, 1, 1]]


def test_nms_takes_the_best_first_and_of_equals_the_first(compute):
    scores, places, kept = nms(compute, [BOXES], [[0.5, 0.5, 0.5]], top_k=2)
    assert (scores, places, kept) == ([[0.5, 0.5]], [[0, 1]], [[1, 0]])


def test_nms_leaves_out_scores_up_to_the_least(compute):
    assert nms(compute, [BOXES], [[0.25, 0.5, 0.125]], least=0.25)[2] == [[1, 0, 0]]
    assert nms(compute, [BOXES], [[0.25, 0.5, 0.125]], least=0.5)[2] == [[0, 0, 0]]


def test_nms_goes_through_each_class_on_its_own(compute):
    scores = [[0.25, 0.5, 0.125], [0.5, 0.25, 0.125]]
    assert nms(compute, [BOXES], scores)[1:] == [[[1, 0, 2], [0, 1, 2]], [[1, 0, 1], [1, 0, 1]]]


def test_nms_may_have_boxes_for_each_class(compute):
    apart = [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]
    assert nms(compute, [BOXES, apart], [[3, 2, 1], [3, 2, 1]])[2] == [[1, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("box", [[0, 0, 0, 2], [2, 2, 0, 0]])
def test_boxes_without_an_area_or_the_wrong_way_round_overlap_nothing(compute, box):
    assert nms(compute, [[box, box]], [[2, 1]])[2] == [[1, 1]]


@pytest.mark.parametrize(
    ("boxes", "scores", "top_k"),
    [
        ((1, 1, 3, 4), (1, 2, 4), 1),
        ((1, 3, 3, 4), (1, 2, 3), 1),
        ((2, 1, 3, 4), (1, 2, 3), 1),
        ((1, 3, 4), (1, 2, 3), 1),
        ((1, 1, 3, 5), (1, 2, 3), 1),
        ((1, 1, 3, 4), (2, 3), 1),
        ((1, 1, 3, 4), (1, 2, 3), 0),
    ],
)
def test_nms_refuses_what_does_not_fit(refuse, boxes, scores, top_k):
    message = refuse(lambda ops, b, s: ops.nms(b, s, top_k=top_k, min_score=0, max_overlap=0), boxes, scores)
    assert "do not fit" in message or "the top 0 cannot be taken" in message


def test_resize_puts_corners_on_corners(compute):
    assert compute(lambda ops, x: ops.resize(x, (1, 3)), [[[[1, 3]]]]).tolist() == [[[[1, 2, 3]]]]


def test_unpool_puts_values_in_their_places(compute):
    top = compute(lambda ops, x, p: ops.unpool(x, p, (2, 2)), [[[[7, 8, 9]]]], [[[[3, 0, np.nan]]]])
    assert top.tolist() == [[[[8, 0], [0, 7]]]]


def test_roi_pool_takes_the_largest_of_each_cell(compute):
    x = np.arange(8).reshape(1, 1, 2, 4)
    top = compute(lambda ops, x, r: ops.roi_pool(x, r, extent=(1, 2), spatial_scale=1), x, [[0, 0, 0, 3, 1]])
    assert top.tolist() == [[[[5, 7]]]]


@pytest.mark.parametrize(
    "build",
    [
        lambda ops, x: ops.resize(x, (0, 3)),
        lambda ops, x: ops.resize(x, (3,)),
        lambda ops, x: ops.resize(x, (2**20, 2**20)),
        lambda ops, x: ops.unpool(x, x, (2**12, 2**13)),
        lambda ops, x: ops.roi_pool(x, x, extent=(1, 1), spatial_scale=1),
    ],
)
def test_sizes_that_cannot_be_are_refused(refuse, build):
    assert refuse(build, (1, 1, 2, 2))
