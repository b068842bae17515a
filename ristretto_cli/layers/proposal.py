"""Proposal, and py-faster-rcnn's ProposalLayer, the Python layer that it is based on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers import param_str
from ristretto_cli.layers.anchors import anchors_of, shifted
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.python import python_layer
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array, Ops, V, show

LOWEST = float(np.finfo(np.float32).min)


@layer_type("Proposal")
class Proposal(LayerType):
    """Faster R-CNN's region proposals: refined anchors after non-maximum suppression, best first.

    Bottoms: scores (1, 2 A, H, W) of the A anchors at each position, the second half for the presence of an
    object; shifts and scales of the anchors (1, 4 A, H, W); and the image's height, width and scale (a fourth number:
    the scale of its width). Tops: regions (R, 5), with 0 (the item), left, top, right, bottom in pixels, and
    optionally their scores (R). R is post_nms_topn, or the maximum possible number if that is smaller. The original
    gives a row per region; here the remaining rows are 0, the first pixel, with a score of 0. Boxes
    with a side below min_size (times the image's scale) get a score of 0 and come last.
    """

    bottoms = (3, 3)
    without_gradient = (0, 1, 2)
    tops = (1, 2)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        param = layer.message.proposal_param
        if min(param.feat_stride, param.base_size, param.pre_nms_topn, param.post_nms_topn) < 1:
            raise LayerError("feat_stride, base_size, pre_nms_topn and post_nms_topn must be 1 or more")
        if not param.nms_thresh >= 0:
            raise LayerError(f"nms_thresh must be 0 or more, not {param.nms_thresh:g}")
        rules = _Rules(
            anchors=anchors_of(param.base_size, param.ratio, param.scale, ties_to_even=False),
            stride=float(param.feat_stride),
            min_side=float(param.min_size),
            score_of_small=0.0,
            candidates=param.pre_nms_topn,
            max_results=param.post_nms_topn,
            max_overlap=param.nms_thresh,
        )
        rois, scores = _proposed(ops, rules, *bottoms)
        return [rois, scores][: len(layer.tops)]


@python_layer("rpn.proposal_layer", "ProposalLayer")
class ProposalLayer(LayerType):
    """Proposal with py-faster-rcnn's default configuration and anchors.

    Boxes overlap by at most 0.7, R is 300 out of 6000 candidates (TRAIN: 2000 out of 12000), and boxes with a side
    below 16 are dropped. param_str has feat_stride and optionally scales (default 8, 16, 32). Scores are (R, 1).
    """

    bottoms = (3, 3)
    tops = (1, 2)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        stride, scales = _python_settings(layer.message)
        candidates, max_results = {TRAIN: (12000, 2000), TEST: (6000, 300)}[layer.phase]
        rules = _Rules(
            anchors=anchors_of(16, (0.5, 1, 2), scales, ties_to_even=True),
            stride=stride,
            min_side=16.0,
            score_of_small=LOWEST,
            candidates=candidates,
            max_results=max_results,
            max_overlap=0.7,
        )
        scores, moves, info = bottoms
        if prod(info.shape) > 3:
            info = ops.slice(ops.reshape(info, (prod(info.shape),)), 0, 0, 3)
        rois, scores = _proposed(ops, rules, scores, moves, info)
        return [rois, ops.reshape(scores, (scores.shape[0], 1))][: len(layer.tops)]


def _python_settings(message: Message) -> tuple[float, tuple[float, ...]]:
    """feat_stride and scales of a param_str."""
    settings = param_str.read(message.python_param.param_str, ("feat_stride", "scales"))
    stride, scales = settings.get("feat_stride"), settings.get("scales", (8.0, 16.0, 32.0))
    if not isinstance(stride, float) or not 0 < stride <= 2**15:
        raise LayerError("feat_stride is missing in its param_str or not a number from 1 to 32768")
    return stride, (scales,) if isinstance(scales, float) else scales


@dataclass(frozen=True)
class _Rules:
    """anchors: of the first position, (A, 4). stride: pixels between positions. min_side: in pixels of
    the original image; score_of_small: the score of smaller boxes, LOWEST: they are dropped. candidates: how
    many of the best boxes enter non-maximum suppression, max_results: the maximum number of results."""

    anchors: Array
    stride: float
    min_side: float
    score_of_small: float
    candidates: int
    max_results: int
    max_overlap: float


def _proposed(ops: Ops[V], rules: _Rules, scores: V, moves: V, info: V) -> tuple[V, V]:
    """Regions (R, 5) and their scores (R)."""
    each = len(rules.anchors)
    shape = scores.shape
    if len(shape) != 4 or shape[:2] != (1, 2 * each):
        raise LayerError(f"its first bottom is {show(shape)}; scores of {each} anchors are (1, {2 * each}, H, W)")
    height, width = shape[2:]
    if moves.shape != (1, 4 * each, height, width):
        wanted = show((1, 4 * each, height, width))
        raise LayerError(f"its second bottom is {show(moves.shape)}; expected {wanted} for {each} anchors")
    if prod(info.shape) < 3:
        raise LayerError(f"its third bottom is {show(info.shape)}; expected an image's height, width and scale")
    anchors = shifted(rules.anchors, height, width, rules.stride)
    count = len(anchors)
    moves = ops.reshape(ops.transpose(moves, [0, 2, 3, 1]), (count, 4))
    score = ops.reshape(ops.transpose(ops.slice(scores, 1, each, 2 * each), [0, 2, 3, 1]), (count, 1))
    facts = [ops.slice(ops.reshape(info, (prod(info.shape),)), 0, i, i + 1) for i in range(min(prod(info.shape), 4))]
    one = ops.constant(1.0)
    image = ops.sub(ops.concat([facts[1], facts[0]], 0), one)  # the last column and row
    scale = ops.concat([facts[-1], facts[2]], 0)

    low, high = (_inside(ops, corner, image) for corner in _moved(ops, anchors, moves))
    beyond = ops.add(high, one)  # corners are inclusive, those of nms are not
    size = ops.sub(beyond, low)
    small = ops.less(size, ops.mul(scale, ops.constant(rules.min_side)))
    sides = ops.where(small, ops.constant(1.0), ops.constant(0.0))
    score = ops.where(ops.less(ops.constant(0.0), ops.max(sides, [1])), ops.constant(rules.score_of_small), score)

    best, places, kept = ops.nms(
        ops.reshape(ops.concat([low, beyond], 1), (1, 1, count, 4)),
        ops.reshape(score, (1, 1, count)),
        top_k=rules.candidates,
        min_score=LOWEST,
        max_overlap=rules.max_overlap,
    )
    return _first(ops, ops.concat([low, high], 1), best, places, kept, rules.max_results)


def _moved(ops: Ops[V], anchors: Array, moves: V) -> tuple[V, V]:
    """The low and the high corners (P, 2) of anchors (P, 4) whose centres are shifted by fractions of their sizes, and
    whose sizes are multiplied by exponentials. moves: (P, 4)."""
    size = anchors[:, 2:] - anchors[:, :2] + 1
    centre = anchors[:, :2] + np.float32(0.5) * size
    by, grow = ops.slice(moves, 1, 0, 2), ops.slice(moves, 1, 2, 4)
    middle = ops.add(ops.mul(by, ops.constant(size)), ops.constant(centre))
    half = ops.mul(ops.mul(ops.exp(grow), ops.constant(size)), ops.constant(0.5))
    return ops.sub(middle, half), ops.add(middle, half)


def _inside(ops: Ops[V], corner: V, last: V) -> V:
    """Corners (P, 2) clipped to the image, whose last pixel is at `last` (2)."""
    return ops.maximum(ops.where(ops.less(corner, last), corner, last), ops.constant(0.0))


def _first(ops: Ops[V], boxes: V, best: V, places: V, kept: V, max_results: int) -> tuple[V, V]:
    """The first of the kept candidates, as (R, 5), and their scores (R). best, places, kept: from nms."""
    count = best.shape[2]
    rows = min(max_results, count)
    best, places, kept = (ops.reshape(value, (count,)) for value in (best, places, kept))
    zero, none = ops.constant(0.0), ops.constant(float(count))
    number = ops.constant(-np.arange(count, dtype=np.float32))
    ranks, _ = ops.top_k(ops.where(ops.less(zero, kept), number, ops.constant(-float(count))), rows, 0)
    ranks = ops.sub(zero, ranks)  # `count` if there is none
    number = ops.clip(ranks, 0.0, float(count - 1))
    score = ops.where(ops.less(ranks, none), ops.gather(best, number, 0), zero)
    corners = ops.gather(boxes, ops.gather(places, number, 0), 0)
    corners = ops.where(ops.less(ops.reshape(ranks, (rows, 1)), none), corners, zero)
    return ops.concat([ops.constant(np.zeros((rows, 1), np.float32)), corners], 1), score
