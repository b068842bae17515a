"""Proposal, and the Python layer that it stands for."""

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN

# One anchor of 16 x 16 pixels at each place, 16 pixels apart: the image is cut into tiles.
TILES = "ratio: 1 scale: 1 min_size: 1"
STILL = np.zeros((1, 4, 1, 3))
IMAGE = [[16, 48, 1]]
PYTHON = """python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" }"""


def proposed(bench, settings, scores, moves=STILL, info=IMAGE):
    scores = np.asarray(scores, np.float32).reshape(1, 1, 1, -1)
    background = np.full_like(scores, 9)
    bottoms = [np.concatenate([background, scores], axis=1), moves, info]
    rois, found = bench.run("Proposal", f"proposal_param {{ {settings} }}", bottoms, tops=2)
    return rois.tolist(), found.tolist()


def test_boxes_come_best_first(bench):
    # A box that is 16 wide around pixel 8 ends at 16, as in the original; the image's last row is 15.
    rois, scores = proposed(bench, TILES, [0.25, 0.75, 0.5])
    assert rois == [[0, 16, 0, 32, 15], [0, 32, 0, 47, 15], [0, 0, 0, 16, 15]]
    assert scores == [0.75, 0.5, 0.25]


def test_boxes_are_moved_by_parts_of_their_size_and_grow_exponentially(bench):
    moves = np.zeros((1, 4, 1, 3))
    moves[0, :, 0, 0] = [1, 0, np.log(0.5), np.log(0.25)]  # the centre to 24, 8 wide, 4 high
    rois, _ = proposed(bench, f"{TILES} post_nms_topn: 1", [1, 0, 0], moves)
    assert np.allclose(rois, [[0, 20, 6, 28, 10]])


def test_a_box_that_overlaps_a_better_one_is_dropped_and_zeros_fill_its_row(bench):
    moves = np.zeros((1, 4, 1, 3))
    moves[0, 0, 0, 0] = 1  # onto its neighbour
    rois, scores = proposed(bench, TILES, [0.25, 0.75, 0.5], moves)
    assert rois == [[0, 16, 0, 32, 15], [0, 32, 0, 47, 15], [0, 0, 0, 0, 0]]
    assert scores == [0.75, 0.5, 0]


@pytest.mark.parametrize(("threshold", "third"), [(0.034, 0.5), (0.03, 0)])
def test_an_overlap_counts_the_last_row_and_column(bench, threshold, third):
    # 17 x 16 pixels and 16 x 16 that share a column of 16: 16 of 512, or 0.03125.
    _, scores = proposed(bench, f"{TILES} nms_thresh: {threshold}", [0.25, 0.75, 0.5])
    assert scores[1] == third


def test_an_overlap_is_never_more_than_1(bench):
    moves = np.zeros((1, 4, 1, 3))
    moves[0, 0, 0, 0] = 1
    assert proposed(bench, f"{TILES} nms_thresh: 1.5", [0.25, 0.75, 0.5], moves)[1] == [0.75, 0.5, 0.25]


def test_candidates_are_counted_before_boxes_are_dropped(bench):
    rois, _ = proposed(bench, f"{TILES} pre_nms_topn: 2", [0.25, 0.75, 0.5])
    assert [row[1] for row in rois] == [16, 32]


def test_small_boxes_come_last(bench):
    moves = np.zeros((1, 4, 1, 3))
    moves[0, 2, 0, 1] = np.log(0.25)  # 4 pixels wide, and so 5 with the last
    rois, scores = proposed(bench, "ratio: 1 scale: 1 min_size: 3", [0.25, 0.75, 0.5], moves, [[16, 48, 2]])
    assert scores == [0.5, 0.25, 0]
    assert rois[2] == [0, 22, 0, 26, 15]


def test_a_fourth_number_is_the_scale_of_the_width(bench):
    moves = np.zeros((1, 4, 1, 3))
    moves[0, 2, 0, 1] = np.log(0.25)
    settings = "ratio: 1 scale: 1 min_size: 3"
    assert proposed(bench, settings, [0.25, 0.75, 0.5], moves, [[16, 48, 2, 1]])[1] == [0.75, 0.5, 0.25]
    assert proposed(bench, settings, [0.25, 0.75, 0.5], moves, [[16, 48, 1, 2]])[1] == [0.5, 0.25, 0]


def overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low + 1, 0))
    return shared / (np.prod(a[2:] - a[:2] + 1) + np.prod(b[2:] - b[:2] + 1) - shared)


def expected_rois(scores, moves, height, width, scale, most):
    """What py-faster-rcnn proposes, box by box."""
    boxes = []
    for row, column, anchor in np.ndindex(scores.shape[2], scores.shape[3], 9):
        ratio, size = divmod(anchor, 3)
        wide, high = np.array([(23, 12), (16, 16), (11, 22)][ratio]) * 2 ** (3 + size)
        across, down, wider, higher = moves[0, 4 * anchor : 4 * anchor + 4, row, column]
        # The centre of an anchor, half a pixel after that of its pixels.
        x, y = column * 16 + 8 + across * wide, row * 16 + 8 + down * high
        half = np.exp(wider) * wide / 2, np.exp(higher) * high / 2
        box = np.clip([x - half[0], y - half[1], x + half[0], y + half[1]], 0, [width - 1, height - 1] * 2)
        if min(box[2:] - box[:2] + 1) >= 16 * scale:
            boxes.append((scores[0, 9 + anchor, row, column], box))
    kept = []
    for score, box in sorted(boxes, key=lambda entry: -entry[0]):
        if all(overlap(box, better) <= 0.7 for _, better in kept):
            kept.append((score, box))
    return kept[:most]


def test_the_python_layer_proposes_what_py_faster_rcnn_does(bench):
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(1, 18, 7, 9)).astype(np.float32)
    moves = (rng.normal(size=(1, 36, 7, 9)) * 0.3).astype(np.float32)
    rois, found = bench.run("Python", PYTHON, [scores, moves, [[110, 140, 2.5]]], tops=2)
    expected = expected_rois(scores, moves.astype(np.float64), 110, 140, 2.5, 300)
    count = len(expected)
    assert rois.shape == (300, 5) and found.shape == (300, 1)
    assert 20 < count < 300
    assert np.allclose(rois[:count, 1:], [box for _, box in expected], atol=1e-3)
    assert found[:count, 0].tolist() == [score for score, _ in expected]
    assert not rois[count:].any() and not found[count:].any()
    assert not rois[:, 0].any()


def test_the_python_layer_proposes_more_in_training(bench):
    bottoms = [np.zeros((1, 18, 16, 16)), np.zeros((1, 36, 16, 16)), IMAGE]
    (rois,) = bench.run("Python", PYTHON, bottoms, phase=TRAIN)
    assert rois.shape == (2000, 5)


def test_the_python_layer_drops_small_boxes(bench):
    # An image of 8 x 8 has no box of 16 pixels.
    (rois,) = bench.run("Python", PYTHON, [np.ones((1, 18, 1, 1)), np.zeros((1, 36, 1, 1)), [[8, 8, 1]]])
    assert rois.tolist() == [[0, 0, 0, 0, 0]] * 9


def test_scales_of_a_param_str_make_other_anchors(bench):
    settings = PYTHON.replace('16"', "16 \\n'scales': !!python/tuple [4, 8, 16, 32]\"")
    (rois,) = bench.run("Python", settings, [np.zeros((1, 24, 2, 2)), np.zeros((1, 48, 2, 2)), [[99, 99, 1]]])
    assert rois.shape == (48, 5)
    assert "scores of 12 anchors are (1, 24, H, W)" in bench.refusal("Python", settings, [(1, 18, 2, 2)] * 3)


def test_boxes_are_regions_for_a_pooling_layer(workshop):
    net = workshop.load(
        """
        layer { name: "in" type: "Input" top: "x" top: "p" top: "m" top: "i" input_param {
          shape { dim: 1 dim: 3 dim: 4 dim: 4 } shape { dim: 1 dim: 2 dim: 4 dim: 4 }
          shape { dim: 1 dim: 4 dim: 4 dim: 4 } shape { dim: 1 dim: 3 } } }
        layer { name: "rois" type: "Proposal" bottom: "p" bottom: "m" bottom: "i" top: "r"
          proposal_param { ratio: 1 scale: 1 post_nms_topn: 5 } }
        layer { name: "pool" type: "ROIPooling" bottom: "x" bottom: "r" top: "y"
          roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.0625 } }
        """
    )
    assert [top.shape for top in net.layers[-1].tops] == [(5, 3, 2, 2)]


SHAPES = [(1, 2, 1, 3), (1, 4, 1, 3), (1, 3)]


@pytest.mark.parametrize(
    ("settings", "shapes", "what"),
    [
        ("scale: 1", SHAPES, "each ratio must be more than 0"),
        ("ratio: 1", SHAPES, "each scale must be more than 0"),
        ("ratio: 1 scale: 1 feat_stride: 0", SHAPES, "must be 1 or more"),
        ("ratio: 1 scale: 1 pre_nms_topn: 0", SHAPES, "must be 1 or more"),
        ("ratio: 1 scale: 1 post_nms_topn: 0", SHAPES, "must be 1 or more"),
        ("ratio: 1 scale: 1 base_size: 0", SHAPES, "must be 1 or more"),
        ("ratio: 1 scale: 1 nms_thresh: nan", SHAPES, "nms_thresh must be 0 or more, not nan"),
        (
            "ratio: 1 scale: 1",
            [(2, 2, 1, 3), *SHAPES[1:]],
            "first bottom is 2x2x1x3; scores of 1 anchors are (1, 2, H, W)",
        ),
        ("ratio: 1 scale: 1", [(1, 2, 3), *SHAPES[1:]], "first bottom is 1x2x3"),
        ("ratio: 1 scale: 1", [SHAPES[0], (1, 4, 3, 1), SHAPES[2]], "second bottom is 1x4x3x1; expected 1x4x1x3"),
        ("ratio: 1 scale: 1", [*SHAPES[:2], (1, 2)], "expected an image's height, width and scale"),
        ("ratio: 1 scale: 1", [(1, 2, 3000, 3000), (1, 4, 3000, 3000), (1, 3)], "9000000 anchors are too many"),
    ],
)
def test_what_is_no_map_of_anchors_is_refused(bench, settings, shapes, what):
    assert what in bench.refusal("Proposal", f"proposal_param {{ {settings} }}", shapes)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("'scales': [8]", "feat_stride is missing"),
        ("'feat_stride': 0", "feat_stride is missing in its param_str or not a number from 1 to 32768"),
        ("'feat_stride': [16]", "feat_stride is missing"),
        ("'feat_stride': 16\\n'ratios': [1]", 'unknown name "ratios" in its param_str'),
    ],
)
def test_a_param_str_with_other_settings_is_refused(bench, text, what):
    settings = PYTHON.replace("'feat_stride': 16", text)
    assert what in bench.refusal("Python", settings, [(1, 18, 2, 2), (1, 36, 2, 2), (1, 3)])
