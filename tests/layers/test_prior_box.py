"""PriorBox."""

import numpy as np
import pytest

MAP, IMAGE = np.zeros((1, 8, 1, 2)), np.zeros((1, 3, 10, 20))


def boxes(bench, settings, bottoms=(MAP, IMAGE)):
    """The boxes, a row each, and their variances."""
    (top,) = bench.run("PriorBox", f"prior_box_param {{ {settings} }}", bottoms)
    assert top.shape[:2] == (1, 2)
    return top.reshape(2, -1, 4)


def test_a_box_stands_in_the_middle_of_each_place(bench):
    # Two places, 10 pixels apart: their middles are (5, 5) and (15, 5) of 20 by 10.
    found, _ = boxes(bench, "min_size: 4")
    assert found == pytest.approx(np.array([[0.15, 0.3, 0.35, 0.7], [0.65, 0.3, 0.85, 0.7]]))


def test_each_place_has_a_square_a_larger_one_and_one_for_each_ratio(bench):
    found, _ = boxes(bench, "min_size: 4 max_size: 9 aspect_ratio: 4")
    sides = (found[:4, 2:] - found[:4, :2]) * [20, 10]
    assert sides == pytest.approx(np.array([[4, 4], [6, 6], [8, 2], [2, 8]]), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ("aspect_ratio: 2 aspect_ratio: 3", 5),
        ("aspect_ratio: 2 flip: false", 2),
        ("aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 2 aspect_ratio: 0.5", 3),
        ("min_size: 8 max_size: 8 max_size: 16 aspect_ratio: 2", 8),
    ],
)
def test_each_ratio_counts_once_and_its_inverse_too(bench, settings, count):
    assert boxes(bench, f"min_size: 4 {settings}").shape == (2, 2 * count, 4)


def test_sizes_are_cut_off_to_integers(bench):
    assert np.array_equal(boxes(bench, "min_size: 4.9 max_size: 9.9"), boxes(bench, "min_size: 4 max_size: 9"))


@pytest.mark.parametrize(
    ("settings", "middle"),
    [
        ("step: 8", [4, 4]),
        ("step_w: 6 step_h: 4", [3, 2]),
        ("offset: 0", [0, 0]),
        ("offset: 0.25 step: 8", [2, 2]),
        ("img_size: 40 step: 0", [10, 20]),
        ("img_w: 40 img_h: 20", [10, 10]),
    ],
)
def test_step_offset_and_image_may_be_given(bench, settings, middle):
    found, _ = boxes(bench, f"min_size: 2 {settings}")
    image = {"img_size: 40 step: 0": [40, 40], "img_w: 40 img_h: 20": [40, 20]}.get(settings, [20, 10])
    assert (found[0, :2] + found[0, 2:]) / 2 * image == pytest.approx(middle, abs=1e-5)


def test_places_are_counted_along_the_rows(bench):
    found, _ = boxes(bench, "min_size: 2 step: 1 offset: 0", (np.zeros((1, 1, 2, 2)), IMAGE))
    assert ((found[:, :2] + found[:, 2:]) / 2 * [20, 10]).round().tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_clip_keeps_boxes_in_the_image(bench):
    settings = "min_size: 12 step: 10"
    assert boxes(bench, settings)[0, 0, 1] == pytest.approx(-0.1)
    assert boxes(bench, f"{settings} clip: true")[0, 0].tolist() == pytest.approx([0, 0, 0.55, 1])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [0.1] * 4),
        ("variance: 0.3", [0.3] * 4),
        ("variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2", [0.1, 0.1, 0.2, 0.2]),
    ],
)
def test_the_second_row_has_the_variances(bench, settings, expected):
    _, found = boxes(bench, f"min_size: 4 {settings}")
    assert found == pytest.approx(np.array([expected] * 2))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("", "min_size is missing"),
        ("min_size: 0", "min_size is missing or less than 1"),
        ("min_size: -4", "min_size is missing or less than 1"),
        ("min_size: nan", "min_size is missing or less than 1"),
        ("min_size: 1e30", "min_size is missing or less than 1"),
        ("min_size: 4 max_size: 4", "larger than its min_size"),
        ("min_size: 4 max_size: inf", "larger than its min_size"),
        ("min_size: 4 max_size: 5 max_size: 6", "1 min_sizes and 2 max_sizes"),
        ("min_size: 4 aspect_ratio: 0", "aspect_ratio must be more than 0"),
        ("min_size: 4 aspect_ratio: inf", "aspect_ratio must be more than 0"),
        ("min_size: 4 variance: 0.1 variance: 0.2", "1 or 4 numbers"),
        ("min_size: 4 variance: 0", "all more than 0"),
        ("min_size: 4 img_size: 5 img_h: 5", "img_size cannot be combined with"),
        ("min_size: 4 step: 5 step_w: 5", "step cannot be combined with"),
        ("min_size: 4 step: -5", "0 or more"),
        ("min_size: 4 step: nan", "0 or more"),
        ("min_size: 4 step: inf", "0 or more"),
        ("min_size: 4 offset: nan", "offset is nan"),
        ("min_size: 4 offset: 1e30 step: 1e30", "exceed float32"),
        ("min_size: 4 variance: inf", "all more than 0"),
        ("min_size: 4" + " aspect_ratio: 2" * 1001, "1001 aspect_ratios are too many"),
    ],
)
def test_boxes_that_cannot_be_are_refused(bench, settings, what):
    message = bench.refusal("PriorBox", f"prior_box_param {{ {settings} }}", [MAP.shape, IMAGE.shape])
    assert what in message


def test_too_many_boxes_are_refused_before_they_are_made(bench):
    shapes = [(1, 1, 30000, 30000), (1, 3, 10, 10)]
    assert "900000000 boxes are too many" in bench.refusal("PriorBox", "prior_box_param { min_size: 4 }", shapes)


def test_bottoms_that_are_no_images_are_refused(bench):
    assert "4 axes" in bench.refusal("PriorBox", "prior_box_param { min_size: 4 }", [(1, 2, 3), (1, 3, 10, 10)])
