"""MultiBoxLoss: compared with a loss that is written separately, box by box, in float64."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from ristretto_cli.caffe_io.messages import TEST, new
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import DYNAMIC

# ------------------------------------------------------------------ the other implementation


def intersection(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1]) if a[2] >= a[0] and a[3] >= a[1] else 0.0


def overlap(a, b):
    shared = intersection(a, b)
    return shared / (area(a) + area(b) - shared) if shared > 0 else 0.0


def middle(a):
    return (a[0] + a[2]) / 2, (a[1] + a[3]) / 2, a[2] - a[0], a[3] - a[1]


def target(code, prior, box):
    if code == "CENTER_SIZE":
        (x, y, w, h), (bx, by, bw, bh) = middle(prior), middle(box)
        return [(bx - x) / w, (by - y) / h, math.log(bw / w), math.log(bh / h)]
    moves = [b - p for p, b in zip(prior, box, strict=True)]
    sizes = middle(prior)[2:] * 2
    return moves if code == "CORNER" else [move / size for move, size in zip(moves, sizes, strict=True)]


def predicted(code, prior, offsets):
    x, y, w, h = middle(prior)
    if code == "CENTER_SIZE":
        x, y, w, h = x + offsets[0] * w, y + offsets[1] * h, w * math.exp(offsets[2]), h * math.exp(offsets[3])
        return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    sizes = (w, h, w, h) if code == "CORNER_SIZE" else (1, 1, 1, 1)
    return [p + o * size for p, o, size in zip(prior, offsets, sizes, strict=True)]


def match(boxes, objects, s):
    """For each box, its object (-1: none, -2: ignored) and its largest overlap."""
    skipped = [s["ignore_cross_boundary_bbox"] and (min(box) < 0 or max(box) > 1) for box in boxes]
    found, most = [-2 if skip else -1 for skip in skipped], [0.0] * len(boxes)
    pairs = {}
    for i, box in enumerate(boxes):
        for j, thing in enumerate(objects):
            if not skipped[i] and overlap(box, thing) > 1e-6:
                pairs[i, j] = overlap(box, thing)
                most[i] = max(most[i], pairs[i, j])
    waiting = set(range(len(objects)))
    while True:
        options = [(-value, i, j) for (i, j), value in pairs.items() if found[i] == -1 and j in waiting]
        if not options:
            break
        _, i, j = min(options)
        found[i] = j
        waiting.remove(j)
    if s["match_type"] == "PER_PREDICTION":
        for i in range(len(boxes)):
            options = [
                (-pairs[i, j], j) for j in range(len(objects)) if pairs.get((i, j), -1) >= s["overlap_threshold"]
            ]
            if found[i] == -1 and options:
                found[i] = min(options)[1]
    return found, most


def keep_apart(order, boxes, s):
    """The best of a list that do not overlap too much."""
    kept = []
    for i in order[: s["top_k"]]:
        if area(boxes[i]) >= 1e-5 and all(overlap(boxes[i], boxes[k]) <= s["nms_threshold"] for k in kept):
            kept.append(i)
    return kept


def log_softmax(scores):
    top = max(scores)
    total = math.log(sum(math.exp(score - top) for score in scores))
    return [score - top - total for score in scores]


def softplus(x):
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def of_scores(scores, wanted, s):
    """The loss of scores and its derivatives; wanted: the classes that are 1."""
    ones = [float(c in wanted) for c in range(len(scores))]
    if s["conf_loss_type"] == "LOGISTIC":
        loss = sum(softplus(score) - one * score for score, one in zip(scores, ones, strict=True))
        return loss, [sigmoid(score) - one for score, one in zip(scores, ones, strict=True)]
    logs = log_softmax(scores)
    (label,) = wanted
    return -max(logs[label], math.log(np.finfo(np.float32).tiny)), [
        math.exp(log) - one for log, one in zip(logs, ones, strict=True)
    ]


def of_difference(d, s):
    if s["loc_loss_type"] == "L2" or abs(d) < 1:
        return d * d / 2, d
    return abs(d) - 0.5, math.copysign(1, d)


def of_offsets(offsets, prior, variance, box, s):
    """The loss of a match's offsets, and its derivatives."""
    wanted = target(s["code_type"], prior, box)
    inside = s["encode_variance_in_target"]
    seen = prior
    if not s["use_prior_for_matching"]:
        scaled = offsets if inside else [o * v for o, v in zip(offsets, variance, strict=True)]
        seen = predicted(s["code_type"], prior, scaled)
    total, slopes = 0.0, []
    for k in range(4):
        if s["bp_inside"] and not 0 <= seen[k] <= 1:
            slopes.append(0.0)
            continue
        if inside:
            loss, slope = of_difference((offsets[k] - wanted[k]) / variance[k], s)
            slope /= variance[k]
        else:
            loss, slope = of_difference(offsets[k] - wanted[k] / variance[k], s)
        total += loss
        slopes.append(slope)
    return total, slopes


def reference(s, loc, conf, prior, rows):
    """The loss and its gradients with respect to loc and conf; s: the settings as a dictionary."""
    loc, conf, prior, rows = (np.asarray(x, np.float64) for x in (loc, conf, prior, rows))
    classes, images = s["num_classes"], len(loc)
    boxes, variances = prior[0].reshape(2, -1, 4).tolist()
    count = len(boxes)
    owners = 1 if s["share_location"] else classes
    loc, conf = loc.reshape(images, count, owners, 4).tolist(), conf.reshape(images, count, classes).tolist()
    to_loc, to_conf = np.zeros((images, count, owners, 4)), np.zeros((images, count, classes))
    mining, background = s["mining_type"], s["background_label_id"]
    loc_total = conf_total = 0.0
    matches = 0
    for image in range(images):
        things = [row for row in rows.reshape(-1, 8).tolist() if row[0] == image]
        things = [row for row in things if s["use_difficult_gt"] or not row[7]]
        labels = [1 if s["map_object_to_agnostic"] else int(row[1]) for row in things]
        corners = [row[3:7] for row in things]

        def decode(owner, image=image):
            offsets = [loc[image][i][owner] for i in range(count)]
            if not s["encode_variance_in_target"]:
                offsets = [[o * v for o, v in zip(*pair, strict=True)] for pair in zip(offsets, variances, strict=True)]
            return [predicted(s["code_type"], *pair) for pair in zip(boxes, offsets, strict=True)]

        found, most = {}, [0.0] * count
        for owner in [0] if s["share_location"] else [c for c in range(classes) if c != background]:
            of_owner = [k for k, label in enumerate(labels) if s["share_location"] or label == owner]
            if not things:
                found[owner] = [-1] * count
            elif s["use_prior_for_matching"]:
                all_found, most = match(boxes, corners, s)
                found[owner] = [k if k in of_owner or (k == -2 and s["share_location"]) else -1 for k in all_found]
            else:
                own, most = match(decode(owner), [corners[k] for k in of_owner], s)
                found[owner] = [of_owner[k] if k >= 0 else k for k in own]

        def classes_of(i, found=found, labels=labels):
            return [labels[of[i]] for of in found.values() if of[i] >= 0]

        chosen = set(range(count))
        if mining != "NONE":
            if not things:
                continue
            (single,) = found.values()
            losses = []
            for i in range(count):
                wanted = classes_of(i) or [background]
                losses.append(of_scores(conf[image][i], wanted, s)[0])
                if mining == "HARD_EXAMPLE" and single[i] >= 0:
                    losses[i] += of_offsets(loc[image][i][0], boxes[i], variances[i], corners[single[i]], s)[0]
            if mining == "MAX_NEGATIVE":
                options = [i for i in range(count) if single[i] == -1 and most[i] < s["neg_overlap"]]
                number = int(sum(k >= 0 for k in single) * s["neg_pos_ratio"])
            else:
                options, number = list(range(count)), s["sample_size"]
            order = sorted(options, key=lambda i, losses=losses: -losses[i])
            if s["nms_threshold"]:
                order = keep_apart(order, boxes if s["use_prior_for_nms"] else decode(0), s)
            picked = set(order[:number])
            chosen = {i for i in picked if single[i] == -1}
            if mining == "HARD_EXAMPLE":
                single[:] = [k if i in picked else min(k, -1) for i, k in enumerate(single)]
            chosen |= {i for i in range(count) if single[i] >= 0}
        for i in sorted(chosen):
            wanted = classes_of(i)
            if s["conf_loss_type"] == "SOFTMAX":
                wanted = wanted[-1:] or [background]
            elif not wanted and mining != "NONE":
                wanted = [background]
            loss, to_conf[image, i] = of_scores(conf[image][i], wanted, s)
            conf_total += loss
        for owner, indices in found.items():
            for i, k in enumerate(indices):
                if k >= 0:
                    matches += 1
                    loss, to_loc[image, i, owner] = of_offsets(
                        loc[image][i][owner], boxes[i], variances[i], corners[k], s
                    )
                    loc_total += loss
    divisor = max({"VALID": matches, "FULL": images * count, "BATCH_SIZE": images, "NONE": 1}[s["normalization"]], 1)
    weights = [s["loc_weight"] * s["propagate_down"][0] / divisor, s["propagate_down"][1] / divisor]
    return weights[0] * loc_total + weights[1] * conf_total, to_loc * weights[0], to_conf * weights[1]


# ------------------------------------------------------------------ random cases


def random_settings(rng):
    flag = lambda odds=0.5: bool(rng.random() < odds)  # noqa: E731
    share = flag(0.75)
    agnostic = flag(0.2)
    s = {
        "loc_loss_type": rng.choice(["L2", "SMOOTH_L1"]),
        "conf_loss_type": rng.choice(["SOFTMAX", "LOGISTIC"]),
        "loc_weight": round(float(rng.uniform(0, 2)), 2),
        "num_classes": 2 if agnostic else int(rng.integers(2, 5)),
        "share_location": share,
        "match_type": rng.choice(["BIPARTITE", "PER_PREDICTION"]),
        "overlap_threshold": float(rng.choice([0.25, 0.375, 0.5])),
        "use_prior_for_matching": flag(),
        "background_label_id": 0,
        "use_difficult_gt": flag(),
        "neg_pos_ratio": float(rng.choice([0.5, 1, 3])),
        "neg_overlap": float(rng.choice([0.25, 0.5])),
        "code_type": rng.choice(["CORNER", "CENTER_SIZE", "CORNER_SIZE"]),
        "encode_variance_in_target": flag(),
        "map_object_to_agnostic": agnostic,
        "ignore_cross_boundary_bbox": flag(0.3),
        "bp_inside": flag(0.3),
        "mining_type": rng.choice(["NONE", "MAX_NEGATIVE", "HARD_EXAMPLE"]) if share else "NONE",
        "sample_size": int(rng.integers(1, 12)),
        "use_prior_for_nms": flag(),
    }
    if not agnostic and flag(0.2):
        s["background_label_id"] = s["num_classes"] - 1
    more = {
        "nms_threshold": float(rng.choice([0, 0.3, 0.6])),
        "top_k": int(rng.integers(3, 20)),
        "normalization": str(rng.choice(["FULL", "VALID", "BATCH_SIZE", "NONE"])),
        "propagate_down": [True, True] if flag(0.7) else [flag(), flag()],
    }
    return s, more


def text_of(s, more):
    def shown(value):
        return str(value).lower() if isinstance(value, bool) else str(value)

    fields = " ".join(f"{name}: {shown(value)}" for name, value in s.items())
    nms = ""
    if more["nms_threshold"]:
        nms = f"nms_param {{ nms_threshold: {more['nms_threshold']} top_k: {more['top_k']} }}"
    down = ""
    if more["propagate_down"] != [True, True]:
        down = "".join(f"propagate_down: {shown(one)} " for one in [*more["propagate_down"], False, False])
    return f"multibox_loss_param {{ {fields} {nms} }} loss_param {{ normalization: {more['normalization']} }} {down}"


def random_bottoms(rng, s):
    images, count, classes = int(rng.integers(1, 4)), int(rng.integers(1, 25)), s["num_classes"]
    owners = 1 if s["share_location"] else classes
    low = rng.uniform(-0.1, 0.7, (count, 2))
    priors = np.hstack([low, low + rng.uniform(0.1, 0.5, (count, 2))])
    prior = np.stack([priors.ravel(), rng.choice([0.1, 0.2, 0.5, 1.0], count * 4)])[None]
    spread = float(rng.choice([0.1, 1, 3]))
    loc = rng.normal(0, spread, (images, count * owners * 4))
    conf = rng.normal(0, 2, (images, count * classes))
    labels = [c for c in range(5 if s["map_object_to_agnostic"] else classes) if c != s["background_label_id"]]
    rows = []
    for image in range(images):
        for _ in range(int(rng.integers(0, 5))):
            x, y = rng.uniform(0, 0.7, 2)
            box = [x, y, x + rng.uniform(0.05, 0.5), y + rng.uniform(0.05, 0.5)]
            rows.append([image, rng.choice(labels), 0, *box, rng.random() < 0.2])
    rows = rows or [[-1] * 8]
    return [np.asarray(x, np.float32) for x in (loc, conf, prior, np.reshape(rows, (1, 1, -1, 8)))]


def a_case(seed):
    rng = np.random.default_rng(seed)
    s, more = random_settings(rng)
    return {**s, **more}, text_of(s, more), random_bottoms(rng, s)


ASKED = os.environ.get("RISTRETTO_EXAMPLES")


@settings(max_examples=int(ASKED or 300), deadline=None, derandomize=not ASKED)
@given(seed=st.integers(0, 2**32 - 1))
def test_losses_and_gradients_are_those_of_a_separate_implementation(seed):
    values, text, bottoms = a_case(seed)
    loss, gradients = loss_of(text, bottoms)
    expected, to_loc, to_conf = reference(values, *bottoms)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    for gradient, wanted, bottom in zip(gradients, (to_loc, to_conf), bottoms, strict=False):
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(
            gradient, wanted.reshape(bottom.shape), rtol=1e-5, atol=1e-5 * max(1.0, np.abs(wanted).max())
        )
    assert gradients[2:] == [None, None]


def test_the_cases_have_matches_and_gradients():
    losses = [reference(values, *bottoms) for values, _, bottoms in map(a_case, range(100))]
    assert sum(bool(to_loc.any()) for _, to_loc, _ in losses) > 50
    assert sum(bool(to_conf.any()) for *_, to_conf in losses) > 60


@pytest.mark.parametrize("seed", range(20))
def test_the_derivatives_are_those_of_the_loss(seed):
    # Differences of a float64 loss; the selection of boxes does not change by such a small step.
    values, _, bottoms = a_case(seed)
    step, rng = 1e-6, np.random.default_rng(seed)
    bottoms = [bottom.astype(np.float64) for bottom in bottoms]
    _, to_loc, to_conf = reference(values, *bottoms)
    for which, gradient in enumerate((to_loc.ravel(), to_conf.ravel())):
        for place in rng.choice(gradient.size, min(gradient.size, 10), replace=False):
            around = []
            for sign in (1, -1):
                moved = [bottom.copy() for bottom in bottoms]
                moved[which].ravel()[place] += sign * step
                around.append(reference(values, *moved)[0])
            assert (around[0] - around[1]) / (2 * step) == pytest.approx(gradient[place], rel=1e-4, abs=1e-4)


# ------------------------------------------------------------------ cases by hand

PRIORS = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5]]
PRIOR = np.stack([np.ravel(PRIORS), np.full(16, 0.5)])[None]
ONE = [[[[0, 1, 0, *PRIORS[1], 0]]]]
LN2 = math.log(2)


def loss_of(text, bottoms):
    message = text_format.Parse(text, new("LayerParameter", name="loss", type="MultiBoxLoss"))
    layer = Layer("loss", "MultiBoxLoss", TEST, message, (), ())
    return LAYERS.get("MultiBoxLoss").loss(layer, [np.asarray(bottom, np.float32) for bottom in bottoms])


def simple(settings, rows=ONE, classes=2, more=""):
    """The loss for predictions of zero."""
    bottoms = [np.zeros((1, 16)), np.zeros((1, 4 * classes)), PRIOR, rows]
    text = f"multibox_loss_param {{ num_classes: {classes} {settings} }} {more}"
    return float(loss_of(text, bottoms)[0])


def test_a_match_and_three_negatives_are_four_logarithms(bench):
    text = "multibox_loss_param { num_classes: 2 }"
    (top,) = bench.run("MultiBoxLoss", text, [np.zeros((1, 16)), np.zeros((1, 8)), PRIOR, ONE])
    assert top.shape == ()
    assert float(top) == pytest.approx(4 * LN2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("neg_pos_ratio: 2", 3 * LN2),
        ("mining_type: NONE", 4 * LN2),
        ("do_neg_mining: false", 4 * LN2),
        ("do_neg_mining: true neg_pos_ratio: 1", 2 * LN2),
        ("mining_type: HARD_EXAMPLE sample_size: 2", 2 * LN2),  # the first two boxes
        ("conf_loss_type: LOGISTIC", 8 * LN2),
        ("nms_param { nms_threshold: 0.4 } use_prior_for_nms: true", 4 * LN2),
        ("nms_param { nms_threshold: 0.4 top_k: 1 } use_prior_for_nms: true", 2 * LN2),
        ("neg_overlap: 0", LN2),
    ],
)
def test_how_many_boxes_count(settings, expected):
    assert simple(settings) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("more", "divisor"),
    [
        ("", 1),
        ("loss_param { normalization: FULL }", 4),
        ("loss_param { normalization: BATCH_SIZE }", 1),
        ("loss_param { normalize: false }", 1),
    ],
)
def test_the_sum_is_normalized(more, divisor):
    assert simple("", more=more) == pytest.approx(4 * LN2 / divisor)


def test_without_objects_nothing_is_mined():
    none = [[[[-1] * 8]]]
    assert simple("", none) == 0
    assert simple("mining_type: HARD_EXAMPLE", none) == 0
    assert simple("mining_type: NONE", none) == pytest.approx(4 * LN2)


def test_an_object_far_from_all_priors_matches_none():
    assert simple("", [[[[0, 1, 0, 2, 2, 3, 3, 0]]]]) == 0


def test_of_equally_near_boxes_the_first_is_matched():
    _, gradients = loss_of(
        "multibox_loss_param { num_classes: 2 match_type: BIPARTITE }",
        [np.zeros((1, 16)), np.zeros((1, 8)), PRIOR, [[[[0, 1, 0, 0.25, 0.25, 0.75, 0.75, 0]]]]],
    )
    assert gradients[1].reshape(4, 2)[:, 1].tolist() == [-0.5, 0.5, 0.5, 0.5]


def test_an_unwanted_loss_does_not_count():
    off = "propagate_down: false propagate_down: %s propagate_down: false propagate_down: false"
    assert simple("", more=off % "true") == pytest.approx(4 * LN2)
    assert simple("", more=off % "false") == 0


def test_infinite_predictions_give_no_number_and_no_warning():
    for code in ("CORNER", "CENTER_SIZE"):
        for value in (np.inf, np.nan, 1e30):
            for matching in ("true", "false"):
                text = f"code_type: {code} use_prior_for_matching: {matching} loc_loss_type: L2"
                loss, _ = loss_of(
                    f"multibox_loss_param {{ num_classes: 2 {text} }}",
                    [np.full((1, 16), value), np.full((1, 8), value), PRIOR, ONE],
                )
                assert loss.shape == ()


def test_variances_must_be_positive():
    prior = np.stack([np.ravel(PRIORS), np.zeros(16)])[None]
    with pytest.raises(LayerError, match="a variance that is not positive"):
        loss_of("multibox_loss_param { num_classes: 2 }", [np.zeros((1, 16)), np.zeros((1, 8)), prior, ONE])


@pytest.mark.parametrize(
    ("label", "settings", "said"),
    [
        (0, "", "the data have an object of the background class, 0"),
        (2, "", "the data have an object of class 2, but num_classes is 2. num_classes includes the background."),
        (-1, "", "an object of class -1"),
    ],
)
def test_labels_that_are_not_classes_are_refused(label, settings, said):
    with pytest.raises(LayerError) as refused:
        simple(settings, [[[[0, label, 0, *PRIORS[1], 0]]]])
    assert said in str(refused.value)


def test_difficult_objects_may_be_left_out():
    hard = [[[[0, 1, 0, *PRIORS[1], 1]]]]
    assert simple("", hard) == pytest.approx(4 * LN2)
    assert simple("use_difficult_gt: false", hard) == 0


def test_all_objects_may_be_of_one_class():
    assert simple("map_object_to_agnostic: true", [[[[0, 7, 0, *PRIORS[1], 0]]]]) == pytest.approx(4 * LN2)


SHAPES = [(1, 16), (1, 8), (1, 2, 16), (1, 1, DYNAMIC, 8)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "num_classes is missing"),
        ("num_classes: 3", "its second bottom is 1x8; for 4 boxes it needs 12 numbers per image"),
        ("num_classes: 2 share_location: false", "its first bottom is 1x16; for 4 boxes it needs 32"),
        ("num_classes: 2 background_label_id: 2", "background_label_id 2 is not one of the 2 classes"),
        ("num_classes: 2 background_label_id: 1 map_object_to_agnostic: true", "map_object_to_agnostic needs"),
        ("num_classes: 2 do_neg_mining: true mining_type: NONE", "contradicts mining_type: NONE"),
        ("num_classes: 2 do_neg_mining: false mining_type: HARD_EXAMPLE", "do_neg_mining: false contradicts"),
        ("num_classes: 2 neg_pos_ratio: 0", "neg_pos_ratio is 0; it must be more than 0"),
        ("num_classes: 2 mining_type: HARD_EXAMPLE sample_size: 0", "sample_size is 0"),
        ("num_classes: 2 loc_weight: nan", "loc_weight is nan"),
        ("num_classes: 2 nms_param { eta: 0.5 }", "eta 0.5 has no effect"),
        ("num_classes: 2 } loss_param { ignore_label: 1", "ignore_label has no effect"),
    ],
)
def test_settings_that_do_not_fit_are_refused(bench, settings, said):
    assert said in bench.refusal("MultiBoxLoss", f"multibox_loss_param {{ {settings} }}", SHAPES)


def test_mining_needs_shared_boxes(bench):
    shapes = [(1, 32), *SHAPES[1:]]
    text = "multibox_loss_param { num_classes: 2 share_location: false %s }"
    assert "mining needs share_location: true" in bench.refusal("MultiBoxLoss", text % "", shapes)


def test_the_fourth_bottom_has_boxes(bench):
    shapes = [*SHAPES[:3], (1, 1, 1, 1)]
    said = bench.refusal("MultiBoxLoss", "multibox_loss_param { num_classes: 2 }", shapes)
    assert "its fourth bottom is 1x1x1x1; expected 1x1x?x8" in said
