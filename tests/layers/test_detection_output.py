"""DetectionOutput."""

import numpy as np
import pytest

from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.net.forward import forward

RNG = np.random.default_rng(0)
NONE = [-1] * 7
BOXES = [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 0.5, 0.4]]  # the third overlaps the first by 0.8
SHARED = "num_classes: 2 nms_param { nms_threshold: 0.5 }"


def priors(boxes, variance=(1, 1, 1, 1)):
    return np.array([np.ravel(boxes), np.ravel([variance] * len(boxes))], np.float32)[None]


def rows(bench, settings, loc, conf, prior):
    (top,) = bench.run("DetectionOutput", f"detection_output_param {{ {settings} }}", [loc, conf, prior])
    return top[0, 0]


def found(bench, settings, scores, boxes=BOXES):
    """Rows for boxes that are where their priors are; scores: one of each class for each box."""
    return rows(bench, settings, np.zeros((1, 4 * len(boxes))), np.reshape(scores, (1, -1)), priors(boxes)).tolist()


def test_a_box_that_overlaps_a_better_one_is_dropped(bench):
    expected = [[0, 1, 0.75, 0, 0, 0.5, 0.5], [0, 1, 0.5, 0.5, 0.5, 1, 1], NONE]
    assert found(bench, SHARED, [[0.25, 0.75], [0.5, 0.5], [0.5, 0.625]]) == expected


def test_a_high_threshold_keeps_it(bench):
    settings = "num_classes: 2 nms_param { nms_threshold: 0.9 }"
    labels = [row[1] for row in found(bench, settings, [[0, 0.75], [0, 0.5], [0, 0.625]])]
    assert labels == [1, 1, 1]


def test_rows_stand_by_class_and_then_by_score(bench):
    scores = [[0, 0.25, 0.5], [0, 0.75, 0.125]]
    table = found(bench, "num_classes: 3", scores, BOXES[:2])
    assert [row[1:3] for row in table] == [[1, 0.75], [1, 0.25], [2, 0.5], [2, 0.125]]


def test_scores_up_to_the_confidence_threshold_do_not_count(bench):
    settings = f"{SHARED} confidence_threshold: 0.5"
    table = found(bench, settings, [[0, 0.75], [0, 0.5], [0, 0.25]])
    assert [row[2] for row in table] == [0.75, -1, -1]


def test_keep_top_k_keeps_the_best_of_all_classes(bench):
    scores = [[0, 0.25, 0.5], [0, 0.75, 0.125]]
    table = found(bench, "num_classes: 3 keep_top_k: 2", scores, BOXES[:2])
    assert [row[1:3] for row in table] == [[1, 0.75], [2, 0.5]]


def test_top_k_counts_before_boxes_are_dropped(bench):
    settings = "num_classes: 2 nms_param { nms_threshold: 0.5 top_k: 2 }"
    table = found(bench, settings, [[0, 0.75], [0, 0.5], [0, 0.625]])
    assert [row[2] for row in table] == [0.75, -1]


def test_of_equal_scores_the_first_box_counts(bench):
    settings = "num_classes: 2 nms_param { nms_threshold: 0.5 top_k: 1 }"
    assert found(bench, settings, [[0, 0.5], [0, 0.5], [0, 0.5]])[0][3:] == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize(("background", "labels"), [(0, [1, 2]), (1, [0, 2]), (2, [0, 1]), (-1, [0, 1, 2])])
def test_the_background_is_left_out(bench, background, labels):
    settings = f"num_classes: 3 background_label_id: {background}"
    table = found(bench, settings, [[0.5, 0.25, 0.125]], BOXES[:1])
    assert [row[1] for row in table] == labels


def test_nothing_found_is_nothing_but_rows_of_minus_1(bench):
    assert found(bench, f"{SHARED} confidence_threshold: 2", np.zeros((3, 2))) == [NONE] * 3


@pytest.mark.parametrize(
    ("settings", "variance", "expected"),
    [
        ("code_type: CORNER", (1, 1, 1, 1), [1.5, 2.5, 4, 7]),
        ("code_type: CORNER", (2, 2, 4, 4), [2, 3, 7, 10]),
        ("code_type: CORNER variance_encoded_in_target: true", (2, 2, 4, 4), [1.5, 2.5, 4, 7]),
        ("code_type: CORNER_SIZE", (1, 1, 1, 1), [2, 4, 5, 10]),
        ("code_type: CENTER_SIZE", (1, 1, 0, 0), [2, 4, 4, 8]),
        ("code_type: CENTER_SIZE", (2, 2, 0, 0), [3, 6, 5, 10]),
        # the size grows by exp(1)
        ("code_type: CENTER_SIZE", (0, 0, 1, 1), [2 - np.e, 4 - 2 * np.e, 2 + np.e, 4 + 2 * np.e]),
    ],
)
def test_offsets_move_the_prior_box(bench, settings, variance, expected):
    prior = priors([[1, 2, 3, 6]], variance)  # centre (2, 4), size 2 by 4
    loc = [[0.5, 0.5, 1, 1]]
    table = rows(bench, f"num_classes: 2 {settings}", loc, [[0, 1]], prior)
    assert table[0, 3:] == pytest.approx(expected, rel=1e-6)


def test_each_class_may_have_its_own_boxes(bench):
    settings = "num_classes: 3 share_location: false"
    loc = np.array([[[9, 9, 9, 9], [1, 1, 1, 1], [2, 2, 2, 2]]]).reshape(1, -1)
    table = rows(bench, settings, loc, [[0, 0.5, 0.25]], priors([[0, 0, 1, 1]]))
    assert table.tolist() == [[0, 1, 0.5, 1, 1, 2, 2], [0, 2, 0.25, 2, 2, 3, 3]]


def test_each_image_has_its_rows(bench):
    settings = f"{SHARED} keep_top_k: 2 confidence_threshold: 0.5"
    conf = [[0, 0.75, 0, 0.625, 0, 0], [0, 0, 0, 0, 0, 0.875]]
    table = rows(bench, settings, np.zeros((2, 12)), conf, priors(BOXES))
    assert table[:, :3].tolist() == [[0, 1, 0.75], [0, 1, 0.625], [1, 1, 0.875], [-1, -1, -1]]


def overlap(a, b):
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = size.prod() if (size > 0).all() else 0.0
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def by_loops(boxes, scores, *, top_k, least, most, keep):
    """SSD's way: (class, score, box) of one image; boxes (P, 4), scores (P, C), class 0 is the background."""
    chosen = []
    for label in range(1, scores.shape[1]):
        order = [i for i in np.argsort(-scores[:, label], kind="stable") if scores[i, label] > least][:top_k]
        kept = []
        for i in order:
            if all(overlap(boxes[i], boxes[j]) <= most for j in kept):
                kept.append(i)
        chosen += [(label, scores[i, label], i) for i in kept]
    best = sorted(chosen, key=lambda row: -row[1])[:keep]
    return [[label, score, *boxes[i]] for label, score, i in sorted(best, key=lambda row: (row[0], -row[1]))]


@pytest.mark.parametrize("keep", [5, 40, 500])
def test_many_boxes_are_chosen_as_by_loops(bench, keep):
    corners = np.sort(RNG.uniform(size=(2, 60, 2)), axis=0).transpose(1, 0, 2).reshape(60, 4).astype(np.float32)
    scores = RNG.uniform(size=(2, 60, 5)).astype(np.float32)
    settings = (
        f"num_classes: 5 keep_top_k: {keep} confidence_threshold: 0.2 nms_param {{ nms_threshold: 0.4 top_k: 30 }}"
    )
    table = rows(bench, settings, np.zeros((2, 240)), scores.reshape(2, -1), priors(corners))
    expected = []
    for image in range(2):
        some = by_loops(corners, scores[image], top_k=30, least=0.2, most=0.4, keep=keep)
        assert some
        expected += [[image, *row] for row in some] + [NONE] * (min(keep, 4 * 30) - len(some))
    assert table == pytest.approx(np.array(expected))


SHAPES = [(1, 12), (1, 6), (1, 2, 12)]


@pytest.mark.parametrize(
    ("settings", "shapes", "what"),
    [
        ("", SHAPES, "num_classes is missing"),
        ("num_classes: 1", [(1, 12), (1, 3), (1, 2, 12)], "no classes other than the background"),
        ("num_classes: 2", [(1, 11), (1, 6), (1, 2, 12)], "first bottom is 1x11; for 3 boxes it needs 12 numbers"),
        ("num_classes: 2", [(1, 12), (1, 7), (1, 2, 12)], "second bottom is 1x7"),
        ("num_classes: 2", [(1, 12), (2, 6), (1, 2, 12)], "second bottom is 2x6"),
        ("num_classes: 2", [(1, 12), (1, 6), (1, 12)], "third bottom is 1x12; expected PriorBox's"),
        ("num_classes: 4000000000", SHAPES, "it needs 12000000000 numbers"),
        ("num_classes: 2 keep_top_k: 0", SHAPES, "keep_top_k is 0"),
        ("num_classes: 2 no_permute: true", SHAPES, "no_permute is not supported"),
        ("num_classes: 2 nms_param { nms_threshold: -1 }", SHAPES, "nms_threshold must be 0 or more"),
        ("num_classes: 2 nms_param { nms_threshold: nan }", SHAPES, "nms_threshold must be 0 or more"),
        ("num_classes: 2 nms_param { eta: 0 }", SHAPES, "eta more than 0"),
        ("num_classes: 2 nms_param { nms_threshold: 0.6 eta: 0.9 }", SHAPES, "eta 0.9"),
        ("num_classes: 2 nms_param { top_k: 0 }", SHAPES, "the top 0 cannot be taken"),
        ("num_classes: 20", [(9, 400000), (9, 2000000), (1, 2, 400000)], "too many to number"),
    ],
)
def test_what_cannot_be_found_is_refused(bench, settings, shapes, what):
    assert what in bench.refusal("DetectionOutput", f"detection_output_param {{ {settings} }}", shapes)


def test_as_many_rows_as_there_are_candidates_are_the_most(bench):
    assert len(found(bench, f"{SHARED} keep_top_k: 2147483647", np.zeros((3, 2)))) == 3


SSD = """
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }
    layer { name: "loc" type: "Convolution" bottom: "data" top: "loc"
            convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
    layer { name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm"
            permute_param { order: 0 order: 2 order: 3 order: 1 } }
    layer { name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }
    layer { name: "conf" type: "Convolution" bottom: "data" top: "conf"
            convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
    layer { name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm"
            permute_param { order: 0 order: 2 order: 3 order: 1 } }
    layer { name: "conf_flat" type: "Flatten" bottom: "conf_perm" top: "conf_flat" }
    layer { name: "prior" type: "PriorBox" bottom: "loc" bottom: "data" top: "prior"
            prior_box_param { min_size: 1 } }
    layer { name: "found" type: "DetectionOutput" bottom: "loc_flat" bottom: "conf_flat" bottom: "prior" top: "found"
            detection_output_param { num_classes: 2 keep_top_k: 3 code_type: CENTER_SIZE
                                     confidence_threshold: 0.25 } }
"""


def test_a_whole_ssd_finds_the_bright_pixels(workshop):
    weights = {"loc": [np.zeros((4, 1, 1, 1))], "conf": [np.reshape([-1, 1], (2, 1, 1, 1))]}
    net = workshop.load(SSD, weights)
    ops = OnnxOps()
    data = ops.input("data", (1, 1, 2, 2))
    run = forward(net, ops, {"data": data}, rng=RNG)
    image = np.array([[0.25, 0.5], [0.75, 0]], np.float32).reshape(1, 1, 2, 2)
    (table,) = lower(ops.graph, run.final).session(threads=1).run({"data": image})["found"][0]
    assert table.tolist() == [[0, 1, 0.75, 0, 0.5, 0.5, 1], [0, 1, 0.5, 0.5, 0, 1, 0.5], NONE]
