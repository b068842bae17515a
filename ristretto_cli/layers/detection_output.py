"""DetectionOutput."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ristretto_cli.caffe_io.messages import Message, enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.prior_codes import count_priors, decode
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import MAX_EXACT_INT, Ops, Shape, V

LOWEST = float(np.finfo(np.float32).min)


@layer_type("DetectionOutput")
class DetectionOutput(LayerType):
    """SSD's detections: decoded boxes after non-maximum suppression per class.

    Bottoms: offsets to the prior boxes (N, P * 4, or with share_location: false P * classes * 4), scores
    (N, P * classes), and PriorBox's top (1, 2, P * 4). Top: (1, 1, N * R, 7), R rows for each image: index of the
    image, class, score, left, top, right, bottom; by class, then by score. R is keep_top_k, or the maximum possible
    number if that is smaller. SSD gives a row per detection; here the remaining rows of an image are all -1. No files
    are written, regardless of save_output_param.
    """

    bottoms = (3, 3)
    without_gradient = (0, 1, 2)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        loc, conf, prior = bottoms
        found = _Settings.of(layer.message.detection_output_param, [b.shape for b in bottoms])
        batch, count, classes = loc.shape[0], found.priors, found.classes
        owners = 1 if found.shared else classes  # boxes may differ per class
        offsets = ops.transpose(ops.reshape(loc, (batch, count, owners, 4)), [0, 2, 1, 3])
        boxes = decode(ops, offsets, prior, found.code, scaled=not found.variance_in_target)
        scores = ops.transpose(ops.reshape(conf, (batch, count, classes)), [0, 2, 1])
        labels = [label for label in range(classes) if label != found.background]
        if len(labels) < classes:
            scores = _without(ops, scores, found.background)
            boxes = boxes if found.shared else _without(ops, boxes, found.background)
        best, places, kept = ops.nms(
            boxes, scores, top_k=found.top_k, min_score=found.min_score, max_overlap=found.max_overlap
        )
        return [_rows(ops, boxes, labels, best, places, kept, found.keep)]


@dataclass(frozen=True)
class _Settings:
    priors: int
    classes: int
    background: int
    shared: bool
    code: str
    variance_in_target: bool
    top_k: int
    keep: int
    min_score: float
    max_overlap: float

    @classmethod
    def of(cls, param: Message, shapes: Sequence[Shape]) -> _Settings:
        if param.num_classes < 1:
            raise LayerError("num_classes is missing", hint="Set the number of classes, including the background.")
        priors = count_priors(shapes, 1 if param.share_location else param.num_classes, param.num_classes)
        if param.no_permute:
            raise LayerError("no_permute is not supported", hint="Add Permute and Flatten layers before it.")
        if param.num_classes == 1 and param.background_label_id == 0:
            raise LayerError("there are no classes other than the background")
        if param.keep_top_k == 0:
            raise LayerError("keep_top_k is 0: nothing would be kept", hint="Use -1 for all.")
        nms = param.nms_param
        if not nms.nms_threshold >= 0 or not 0 < nms.eta <= 1:
            raise LayerError("nms_threshold must be 0 or more, and eta more than 0 and at most 1")
        if nms.eta < 1 and nms.nms_threshold > 0.5:
            raise LayerError(f"eta {nms.eta:g}, a decreasing threshold, is not supported", hint="Remove it.")
        found = cls(
            priors=priors,
            classes=param.num_classes,
            background=param.background_label_id,
            shared=param.share_location,
            code=enum_name(param, "code_type"),
            variance_in_target=param.variance_encoded_in_target,
            top_k=nms.top_k if nms.HasField("top_k") and nms.top_k >= 0 else priors,
            keep=param.keep_top_k,
            min_score=param.confidence_threshold if param.HasField("confidence_threshold") else LOWEST,
            max_overlap=nms.nms_threshold,
        )
        if shapes[0][0] * found.classes * priors > MAX_EXACT_INT:
            raise LayerError(
                f"{shapes[0][0]} images, {found.classes} classes and {priors} boxes are too many to number"
            )
        return found


def _without(ops: Ops[V], x: V, label: int) -> V:
    """x without one entry of axis 1."""
    parts = [(0, label), (label + 1, x.shape[1])]
    kept = [ops.slice(x, 1, start, stop) for start, stop in parts if start < stop]
    return kept[0] if len(kept) == 1 else ops.concat(kept, 1)


def _rows(ops: Ops[V], boxes: V, labels: Sequence[int], best: V, places: V, kept: V, keep: int) -> V:
    """The best of all classes, by class and score, (1, 1, N * R, 7). best, places, kept: nms's results, (N, C, K)."""
    batch, classes, each = best.shape
    count = classes * each
    rows = min(keep, count) if keep >= 0 else count
    kept = ops.reshape(kept, (batch, count))
    zero = ops.constant(0.0)

    # Candidates are numbered by class and score: ascending numbers are the order of the rows.
    number: V = ops.constant(np.arange(count, dtype=np.float32))
    chosen = kept
    if rows < count:
        scored = ops.where(ops.less(zero, kept), ops.reshape(best, (batch, count)), ops.constant(LOWEST))
        _, number = ops.top_k(scored, rows, 1)
        chosen = ops.gather(ops.reshape(kept, (batch * count,)), _in_batch(ops, number, count), 0)
    ranks = ops.where(ops.less(zero, chosen), ops.sub(zero, number), ops.constant(-float(count)))
    number, _ = ops.top_k(ranks, rows, 1)
    number = ops.sub(zero, number)  # (N, R); `count` if there is none
    there = ops.reshape(ops.sub(ops.constant(float(count)), number), (batch, rows, 1))  # 0 if there is none
    number = ops.clip(number, 0.0, float(count - 1))

    flat = _in_batch(ops, number, count)
    score = ops.gather(ops.reshape(best, (batch * count,)), flat, 0)
    prior = ops.gather(ops.reshape(places, (batch * count,)), flat, 0)
    owner = ops.gather(ops.constant(np.repeat(np.arange(classes, dtype=np.float32), each)), number, 0)
    label = ops.gather(ops.constant(np.repeat(np.asarray(labels, np.float32), each)), number, 0)
    priors = boxes.shape[2]
    if boxes.shape[1] > 1:
        prior = ops.add(prior, ops.mul(owner, ops.constant(float(priors))))
    per_image = boxes.shape[1] * priors
    corners = ops.gather(ops.reshape(boxes, (batch * per_image, 4)), _in_batch(ops, prior, per_image), 0)
    image = ops.expand(ops.constant(np.arange(batch, dtype=np.float32).reshape(-1, 1, 1)), (batch, rows, 1))
    columns = [image, *(ops.reshape(value, (batch, rows, 1)) for value in (label, score)), corners]
    found = ops.where(ops.less(zero, there), ops.concat(columns, 2), ops.constant(-1.0))
    return ops.reshape(found, (1, 1, batch * rows, 7))


def _in_batch(ops: Ops[V], number: V, each: int) -> V:
    """Indices within the images (N, R), `each` per image, as indices within the batch."""
    first = np.arange(number.shape[0], dtype=np.float32).reshape(-1, 1) * each
    return ops.add(number, ops.constant(first))
