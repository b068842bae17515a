"""DetectionEvaluate: which findings are right, and the metric on all batches."""

import numpy as np
import pytest

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.average_precision import ApVersion
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.ops import DYNAMIC

KIND = "DetectionEvaluate"
TWO = "detection_evaluate_param { num_classes: 3 %s }"  # the background, 0, and the classes 1 and 2
LEFT, RIGHT = (0, 0, 0.5, 1), (0.5, 0, 1, 1)  # halves of an image
NOTHING = [-1] * 7


def found(image, label, score, box):
    return [image, label, score, *box]


def there(image, label, box, difficult=0):
    return [image, label, 0, *box, difficult]


def table(rows, columns):
    return np.array(rows, np.float32).reshape(1, 1, -1, columns)


def evaluate(bench, findings, truth, settings=""):
    """The rows of the top, those of the classes first."""
    (top,) = bench.run(KIND, TWO % settings, [table(findings, 7), table(truth, 8)])
    return top.reshape(-1, 5).tolist()


def judged(bench, findings, truth, settings=""):
    """Only the rows of detections."""
    return evaluate(bench, findings, truth, settings)[2:]


def test_a_row_for_each_class_tells_how_many_there_are(bench):
    truth = [there(0, 1, LEFT), there(0, 1, RIGHT), there(1, 1, LEFT)]
    assert evaluate(bench, [NOTHING], truth) == [[-1, 1, 3, -1, -1], [-1, 2, 0, -1, -1]]


def test_what_overlaps_by_the_threshold_is_right(bench):
    # (0, 0, 1, 1) and a half of it overlap by 1/2.
    whole = [found(0, 1, 0.75, (0, 0, 1, 1))]
    assert judged(bench, whole, [there(0, 1, LEFT)]) == [[0, 1, 0.75, 1, 0]]
    assert judged(bench, whole, [there(0, 1, LEFT)], "overlap_threshold: 0.51") == [[0, 1, 0.75, 0, 1]]


def test_of_two_findings_of_one_object_the_better_one_is_right(bench):
    findings = [found(0, 1, 0.25, LEFT), found(0, 1, 0.5, LEFT)]
    assert judged(bench, findings, [there(0, 1, LEFT)]) == [[0, 1, 0.5, 1, 0], [0, 1, 0.25, 0, 1]]


def test_a_finding_is_compared_with_the_object_that_it_overlaps_most_even_if_that_is_taken(bench):
    findings = [found(0, 1, 0.5, LEFT), found(0, 1, 0.25, (0, 0, 0.75, 1))]  # 2/3 of the left, 1/4 of the right
    truth = [there(0, 1, RIGHT), there(0, 1, LEFT)]
    assert judged(bench, findings, truth, "overlap_threshold: 0.2") == [[0, 1, 0.5, 1, 0], [0, 1, 0.25, 0, 1]]


def test_objects_of_other_images_and_classes_do_not_count(bench):
    findings = [found(0, 1, 0.5, LEFT), found(1, 2, 0.25, LEFT)]
    truth = [there(0, 2, LEFT), there(1, 1, LEFT)]
    assert judged(bench, findings, truth) == [[0, 1, 0.5, 0, 1], [1, 2, 0.25, 0, 1]]


def test_rows_stand_by_image_then_class_and_without_objects_as_they_came(bench):
    findings = [found(1, 2, 0.1, LEFT), found(0, 2, 0.25, LEFT), found(0, 2, 0.5, LEFT), found(0, 1, 0.75, LEFT)]
    assert [row[:3] for row in judged(bench, findings, [there(0, 1, LEFT)])] == [
        [0, 1, 0.75],
        [0, 2, 0.25],
        [0, 2, 0.5],
        [1, 2, pytest.approx(0.1)],
    ]


def test_a_difficult_object_counts_as_any_other_by_default(bench):
    rows = evaluate(bench, [found(0, 1, 0.5, LEFT)], [there(0, 1, LEFT, difficult=1)])
    assert rows == [[-1, 1, 1, -1, -1], [-1, 2, 0, -1, -1], [0, 1, 0.5, 1, 0]]


def test_a_difficult_object_that_is_not_evaluated_makes_what_finds_it_neither_right_nor_wrong(bench):
    findings = [found(0, 1, 0.5, LEFT), found(0, 1, 0.25, LEFT)]
    rows = evaluate(bench, findings, [there(0, 1, LEFT, difficult=1)], "evaluate_difficult_gt: false")
    assert rows[0] == [-1, 1, 0, -1, -1]
    assert rows[2:] == [[0, 1, 0.5, 0, 0], [0, 1, 0.25, 0, 0]]


def test_rows_that_stand_for_nothing_are_passed_over(bench):
    no_object = [0, -1, 0, 0, 0, 0, 0]  # what SSD gives an image without objects
    assert judged(bench, [NOTHING, no_object, found(0, 1, 0.5, LEFT)], [there(0, 1, LEFT)]) == [[0, 1, 0.5, 1, 0]]


def test_the_truth_ends_where_an_image_is_minus_one(bench):
    truth = [there(0, 1, LEFT), [-1] * 8, there(0, 1, RIGHT)]
    assert evaluate(bench, [NOTHING], truth)[0] == [-1, 1, 1, -1, -1]


def test_boxes_with_exchanged_corners_and_numbers_that_are_none_are_wrong(bench):
    findings = [found(0, 1, 0.5, (1, 1, 0, 0)), found(0, 1, 0.25, (np.nan, 0, 0.5, 1)), found(np.inf, 1, 1, LEFT)]
    assert judged(bench, findings, [there(0, 1, LEFT)]) == [[0, 1, 0.5, 0, 1], [0, 1, 0.25, 0, 1]]


def test_another_background(bench):
    rows = evaluate(bench, [found(0, 0, 0.5, LEFT)], [there(0, 0, LEFT)], "background_label_id: 2")
    assert rows == [[-1, 0, 1, -1, -1], [-1, 1, 0, -1, -1], [0, 0, 0.5, 1, 0]]


@pytest.mark.parametrize(
    ("findings", "truth", "said"),
    [
        ([found(0, 0, 0.5, LEFT)], [there(0, 1, LEFT)], "of the background class in the detection results"),
        ([found(0, 1, 0.5, LEFT)], [there(0, 0, LEFT)], "of the background class in the dataset"),
    ],
)
def test_objects_of_the_background_are_refused(bench, findings, truth, said):
    with pytest.raises(LayerError, match=said):
        evaluate(bench, findings, truth)


# --- sizes of images


def pixels(bench, tmp_path, lines, findings, truth, settings=""):
    (tmp_path / "sizes.txt").write_text(lines)
    return judged(bench, findings, truth, f'name_size_file: "{tmp_path}/sizes.txt" {settings}')


def test_in_pixels_a_box_covers_both_its_edges(bench, tmp_path):
    # Of ten pixels, columns 0 to 1 and 1 to 2: two each, and one in common: 1/3. In shares they only touch: 0.
    findings, truth = [found(0, 1, 0.5, (0, 0, 0.1, 1))], [there(0, 1, (0.1, 0, 0.2, 1))]
    enough = "overlap_threshold: 0.33"
    assert pixels(bench, tmp_path, "a 10 10\n", findings, truth, enough) == [[0, 1, 0.5, 1, 0]]
    assert judged(bench, findings, truth, enough) == [[0, 1, 0.5, 0, 1]]


def test_in_pixels_boxes_are_cut_off_at_the_image(bench, tmp_path):
    findings = [found(0, 1, 0.5, (-3, -3, 3, 3))]
    assert pixels(bench, tmp_path, "a 10 10\n", findings, [there(0, 1, (0, 0, 1, 1))]) == [[0, 1, 0.5, 1, 0]]


def test_the_padding_of_a_wide_image_is_taken_away(bench, tmp_path):
    # 20 x 10 pixels fill the middle half of a square's height.
    resize = "resize_param { resize_mode: FIT_LARGE_SIZE_AND_PAD height: 100 width: 100 } overlap_threshold: 0.95"
    findings, truth = [found(0, 1, 0.5, (0, 0, 1, 1))], [there(0, 1, (0, 0.25, 1, 0.75))]
    assert pixels(bench, tmp_path, "a 10 20\n", findings, truth, resize) == [[0, 1, 0.5, 1, 0]]
    assert pixels(bench, tmp_path, "a 10 10\n", findings, truth, resize) == [[0, 1, 0.5, 0, 1]]


def test_with_scales_of_its_own_a_box_is_scaled_and_then_cut_off(bench, tmp_path):
    # Both end at the image's 10 pixels; as shares the second is half of the first.
    resize = "resize_param { resize_mode: FIT_SMALL_SIZE height: 5 width: 5 height_scale: 20 width_scale: 20 }"
    findings, truth = [found(0, 1, 0.5, (0, 0, 1, 1))], [there(0, 1, (0, 0, 0.5, 1))]
    enough = f"{resize} overlap_threshold: 0.9"
    assert pixels(bench, tmp_path, "a 10 10\n", findings, truth, enough) == [[0, 1, 0.5, 1, 0]]


def test_each_image_has_its_own_size_batch_after_batch_and_from_the_first_again(bench, tmp_path):
    # Boxes that touch are found (1/3 > 0.3) in ten columns, and not in 1000 (1/201).
    (tmp_path / "sizes.txt").write_text("a 10 10\nb 1000 1000\nc 10 10\n")
    settings = TWO % f'name_size_file: "{tmp_path}/sizes.txt" overlap_threshold: 0.3'
    compute = LAYERS.get(KIND).start(bench.layer(KIND, settings, bottoms=2))
    findings = table([found(i, 1, 0.5, (0, 0, 0.1, 1)) for i in range(2)], 7)
    truth = table([there(i, 1, (0.1, 0, 0.2, 1)) for i in range(2)], 8)
    right = [compute([findings, truth])[0].reshape(-1, 5)[2:, 3].tolist() for _ in range(3)]
    assert right == [[1, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (None, "name_size_file: .*sizes.txt: .*Without name_size_file, boxes are compared in relative coordinates"),
        ("", "sizes.txt is empty"),
        ("a 10 10\nb 10\n", "sizes.txt:2: expected a name, a height and a width"),
        ("a 10 x\n", "sizes.txt:1: expected a name, a height"),
        ("a 0 10\n", "sizes.txt:1: expected a name, a height"),
        ("a 10 12345678901\n", "sizes.txt:1: expected a name, a height"),
    ],
)
def test_what_is_no_file_of_sizes_is_refused_when_the_net_is_to_run(bench, tmp_path, lines, said):
    if lines is not None:
        (tmp_path / "sizes.txt").write_text(lines)
    layer = bench.layer(KIND, TWO % f'name_size_file: "{tmp_path}/sizes.txt"', bottoms=2)
    with pytest.raises(LayerError, match=said):
        LAYERS.get(KIND).start(layer)


# --- the metric


def metric(bench, batches, version=ApVersion.INTEGRAL):
    layer = bench.layer(KIND, TWO % "", bottoms=2)
    tops = [np.array(rows, np.float32).reshape(1, 1, -1, 5) for rows in batches]
    return LAYERS.get(KIND).compute(layer, tops, MetricOptions(version))


def test_the_metric_is_the_mean_of_the_classes_over_all_batches(bench):
    # Class 1: 4 objects in two batches; by score right, wrong, right. Class 2: one object, found at once.
    first = [[-1, 1, 3, -1, -1], [-1, 2, 0, -1, -1], [0, 1, 0.9, 1, 0], [0, 1, 0.5, 1, 0]]
    second = [[-1, 1, 1, -1, -1], [-1, 2, 1, -1, -1], [0, 1, 0.7, 0, 1], [0, 2, 0.1, 1, 0]]
    area = metric(bench, [first, second])
    assert area.parts == {"class1": pytest.approx(1 / 4 + 1 / 4 * (2 / 3), abs=1e-6), "class2": 1}
    assert area.value == pytest.approx((5 / 12 + 1) / 2, abs=1e-6)
    points = metric(bench, [first, second], ApVersion.ELEVEN_POINTS)
    assert points.parts["class1"] == pytest.approx((3 + 3 * (2 / 3)) / 11, abs=1e-6)


def test_what_does_not_count_is_not_in_the_metric(bench):
    rows = [[-1, 1, 1, -1, -1], [-1, 2, 1, -1, -1], [0, 1, 0.9, 0, 0], [0, 1, 0.5, 1, 0]]
    assert metric(bench, [rows]).parts == {"class1": 1, "class2": 0}


def test_classes_that_are_nowhere_count_as_nothing_in_the_mean_as_in_ssd(bench):
    rows = [[-1, 1, 1, -1, -1], [-1, 2, 0, -1, -1], [0, 1, 0.5, 1, 0]]
    assert metric(bench, [rows]).value == 0.5


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "shapes", "said"),
    [
        (TWO % "", [(1, 1, 5, 8), (1, 1, 5, 8)], "its first bottom is 1x1x5x8; expected 1x1x?x7"),
        (TWO % "", [(1, 1, 5, 7), (2, 1, DYNAMIC, 8)], "its second bottom is 2x1x?x8; expected 1x1x?x8"),
        (TWO % "", [(5, 7), (1, 1, 5, 8)], "its first bottom is 5x7"),
        ("", [(1, 1, 5, 7), (1, 1, 5, 8)], "num_classes is missing"),
        (
            "detection_evaluate_param { num_classes: 1 }",
            [(1, 1, 5, 7), (1, 1, 5, 8)],
            "num_classes is 1; it must be 2 to 65536",
        ),
        (
            "detection_evaluate_param { num_classes: 4000000000 }",
            [(1, 1, 5, 7), (1, 1, 5, 8)],
            "num_classes is 4000000000; it must be 2 to 65536",
        ),
        (TWO % "overlap_threshold: 0", [(1, 1, 5, 7), (1, 1, 5, 8)], "overlap_threshold is 0; it must be more than 0"),
        (TWO % "resize_param { height: 3 }", [(1, 1, 5, 7), (1, 1, 5, 8)], "resize_param needs a height and a width"),
    ],
)
def test_bad_settings_and_shapes_are_refused(bench, settings, shapes, said):
    assert said in bench.refusal(KIND, settings, shapes)


def test_the_number_of_rows_depends_on_the_data(bench):
    layer = bench.layer(KIND, TWO % "", bottoms=2)
    assert LAYERS.get(KIND).shapes(layer, [(1, 1, 5, 7), (1, 1, DYNAMIC, 8)]) == [(1, 1, DYNAMIC, 5)]
