"""MultiBoxLoss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from ristretto_cli.caffe_io.messages import Message, enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.box_matching import UNMATCHED, Indices, matched, positive_overlaps, suppressed
from ristretto_cli.layers.boxes import Boxes
from ristretto_cli.layers.host_layer import HostLoss
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.losses import normalization
from ristretto_cli.layers.prior_codes import count_priors, decoded, encoded
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import DYNAMIC, AnyArray, Array, Shape, fits, show

_TINY = float(np.finfo(np.float32).tiny)  # minimum of a probability: its logarithm stays finite
_IMAGE, _LABEL, _BOX, _DIFFICULT = 0, 1, slice(3, 7), 7  # the columns of the objects


@layer_type("MultiBoxLoss")
class MultiBoxLoss(HostLoss):
    """SSD's loss: of the offsets of prior boxes that match an object, and of the scores of these and of hard negatives.

    Bottoms: offsets to the prior boxes (N, P * 4, or with share_location: false P * classes * 4), scores
    (N, P * classes), PriorBox's top (1, 2, P * 4), and objects (1, 1, M, 8) with rows of image index, class, an unused
    number, left, top, right, bottom, and whether the object is difficult; rows of image -1 are skipped. Top: (). It is
    the sum of both losses, the first times loc_weight, divided by the number of matches (normalization VALID, the
    default), by N (BATCH_SIZE), by N P (FULL) or not (NONE). A propagate_down of false omits the loss of its bottom.

    Overlaps are computed in float32, losses and gradients in float64. Of equal losses those of the first boxes are
    mined; in SSD the order is that of an unstable sort.
    """

    bottoms = (4, 4)
    without_gradient = (2, 3)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        _Settings.of(layer.message, bottoms)
        if not fits(bottoms[3], (1, 1, DYNAMIC, 8)):
            raise LayerError(f"its fourth bottom is {show(bottoms[3])}; expected 1x1x?x8, AnnotatedData's boxes")
        return [()]

    def loss(self, layer: Layer, bottoms: Sequence[Array]) -> tuple[Array, Sequence[Array | None]]:
        settings = _Settings.of(layer.message, [bottom.shape for bottom in bottoms])
        # Diverging nets have infinite predictions; their loss is not a number.
        with np.errstate(over="ignore", invalid="ignore"):
            loss, to_loc, to_conf = (part.astype(np.float32) for part in _Batch(settings, bottoms).loss())
        return loss, [to_loc.reshape(bottoms[0].shape), to_conf.reshape(bottoms[1].shape), None, None]


@dataclass(frozen=True)
class _Settings:
    """The settings of a MultiBoxLoss layer, for N images.

    shared: whether the boxes are those of all classes. threshold: of matches per prediction; None for
    bipartite matches alone. mining: NONE, MAX_NEGATIVE or HARD_EXAMPLE. max_overlap: of mined boxes; None without
    suppression. top_k: before suppression. scales: what the losses of the offsets and of the scores are multiplied by,
    before normalization.
    """

    images: int
    priors: int
    shared: bool
    classes: int
    background: int
    smooth: bool
    logistic: bool
    threshold: float | None
    matches_priors: bool
    keeps_difficult: bool
    agnostic: bool
    ignores_crossing: bool
    bp_inside: bool
    mining: str
    ratio: float
    negative_overlap: float
    samples: int
    max_overlap: float | None
    top_k: int
    suppresses_priors: bool
    code: str
    variance_in_target: bool
    normalization: str
    scales: tuple[float, float]

    @property
    def owners(self) -> int:
        """The number of boxes of each prior."""
        return 1 if self.shared else self.classes

    @classmethod
    def of(cls, message: Message, shapes: Sequence[Shape]) -> _Settings:
        param, nms = message.multibox_loss_param, message.multibox_loss_param.nms_param
        if param.num_classes < 1:
            raise LayerError("num_classes is missing", hint="Set the number of classes, including the background.")
        owners = 1 if param.share_location else param.num_classes
        priors = count_priors(shapes[:3], owners, param.num_classes)
        if message.loss_param.HasField("ignore_label"):
            raise LayerError("ignore_label has no effect in this layer", hint="Remove it.")
        logistic = enum_name(param, "conf_loss_type") == "LOGISTIC"
        background = param.background_label_id
        if not logistic and background >= param.num_classes:
            raise LayerError(
                f"background_label_id {background} is not one of the {param.num_classes} classes",
                hint="Only conf_loss_type LOGISTIC works without a background class.",
            )
        if param.map_object_to_agnostic and (param.num_classes, background) != (2, 0):
            raise LayerError("map_object_to_agnostic needs num_classes 2 and background_label_id 0")
        mining = _mining(param)
        if mining != "NONE" and not param.share_location:
            raise LayerError("mining needs share_location: true", hint="Set mining_type: NONE.")
        if mining == "MAX_NEGATIVE" and not 0 < param.neg_pos_ratio < np.inf:
            raise LayerError(f"neg_pos_ratio is {param.neg_pos_ratio:g}; it must be more than 0")
        if mining == "HARD_EXAMPLE" and param.sample_size < 1:
            raise LayerError(f"sample_size is {param.sample_size}; it must be 1 or more")
        if not isfinite(param.loc_weight):
            raise LayerError(f"loc_weight is {param.loc_weight:g}")
        if nms.eta != 1:
            raise LayerError(f"eta {nms.eta:g} has no effect in this layer", hint="Remove it.")
        suppresses = mining != "NONE" and param.HasField("nms_param") and nms.nms_threshold > 0
        down = [*message.propagate_down][:2] or [True, True]
        return cls(
            images=shapes[0][0],
            priors=priors,
            shared=param.share_location,
            classes=param.num_classes,
            background=background,
            smooth=enum_name(param, "loc_loss_type") == "SMOOTH_L1",
            logistic=logistic,
            threshold=param.overlap_threshold if enum_name(param, "match_type") == "PER_PREDICTION" else None,
            matches_priors=param.use_prior_for_matching,
            keeps_difficult=param.use_difficult_gt,
            agnostic=param.map_object_to_agnostic,
            ignores_crossing=param.ignore_cross_boundary_bbox,
            bp_inside=param.bp_inside,
            mining=mining,
            ratio=param.neg_pos_ratio,
            negative_overlap=param.neg_overlap,
            samples=param.sample_size,
            max_overlap=nms.nms_threshold if suppresses else None,
            # DIFFERS: an unset top_k is 0 in SSD, so that nothing would be mined.
            top_k=nms.top_k if nms.HasField("top_k") and nms.top_k >= 0 else priors,
            suppresses_priors=param.use_prior_for_nms,
            code=enum_name(param, "code_type"),
            variance_in_target=param.encode_variance_in_target,
            normalization=normalization(message.loss_param, "VALID"),
            scales=(param.loc_weight * down[0], 1.0 * down[1]),
        )


def _mining(param: Message) -> str:
    """The mining type; do_neg_mining, its predecessor, must not contradict it."""
    mining = enum_name(param, "mining_type")
    if not param.HasField("do_neg_mining"):
        return mining
    if not param.HasField("mining_type"):
        return "MAX_NEGATIVE" if param.do_neg_mining else "NONE"
    if param.do_neg_mining != (mining != "NONE"):
        text = str(param.do_neg_mining).lower()
        raise LayerError(f"do_neg_mining: {text} contradicts mining_type: {mining}", hint="Remove do_neg_mining.")
    return mining


@dataclass(frozen=True)
class _Objects:
    """The objects of a batch: the image (M,), the label (M,) and the corners (M, 4) of each."""

    images: Indices
    labels: Indices
    corners: Array

    @classmethod
    def of(cls, rows: Array, settings: _Settings) -> _Objects:
        rows = rows.reshape(-1, 8)
        rows = rows[np.isfinite(rows[:, :2]).all(1)]
        images, labels = (np.trunc(rows[:, column]).astype(np.int64) for column in (_IMAGE, _LABEL))
        there = (images >= 0) & (images < settings.images)
        if (labels[there] == settings.background).any():
            raise LayerError(f"the data have an object of the background class, {settings.background}")
        if not settings.keeps_difficult:
            there &= rows[:, _DIFFICULT] == 0
        wrong = labels[there & ((labels < 0) | (labels >= settings.classes))]
        if settings.agnostic:
            labels = np.full_like(labels, settings.background + 1)
        elif len(wrong):
            raise LayerError(
                f"the data have an object of class {wrong[0]}, but num_classes is {settings.classes}",
                hint="num_classes includes the background.",
            )
        return cls(images[there], labels[there], rows[there][:, _BOX])


@dataclass
class _Matches:
    """The K matches of a batch.

    images, owners, priors, objects: the indices of each (K,). differences, slopes: (K, 4), the differences of
    the offsets from those of the objects, and the derivative of these by the offsets.
    """

    images: Indices
    owners: Indices
    priors: Indices
    objects: Indices
    differences: AnyArray
    slopes: AnyArray

    def where(self, chosen: AnyArray) -> _Matches:
        parts = (self.images, self.owners, self.priors, self.objects, self.differences, self.slopes)
        return _Matches(*(part[chosen] for part in parts))


class _Batch:
    """The loss of one batch."""

    def __init__(self, settings: _Settings, bottoms: Sequence[Array]) -> None:
        s = self._settings = settings
        self._offsets = bottoms[0].reshape(s.images, s.priors, s.owners, 4).astype(np.float64)
        self._scores = bottoms[1].reshape(s.images, s.priors, s.classes).astype(np.float64)
        self._boxes, self._variances = bottoms[2].reshape(2, s.priors, 4).astype(np.float64)
        self._objects = _Objects.of(bottoms[3], s)

    def loss(self) -> tuple[AnyArray, AnyArray, AnyArray]:
        """The loss, (), and its gradients with respect to offsets and scores."""
        s = self._settings
        indices, overlaps = self._matched()
        matches = self._matches(indices)
        if s.mining == "NONE":
            counted = np.ones((s.images, s.priors), np.bool_)
        else:
            chosen = self._mined(indices[:, 0], overlaps, matches)
            if s.mining == "HARD_EXAMPLE":
                matches = matches.where(chosen[matches.images, matches.priors])
            counted = chosen & (indices[:, 0] == UNMATCHED)
            counted[matches.images, matches.priors] = True
        number = {"FULL": s.images * s.priors, "VALID": len(matches.images), "BATCH_SIZE": s.images, "NONE": 1}
        divisor = max(number[s.normalization], 1)
        scale_loc, scale_conf = (scale / divisor for scale in s.scales)

        to_loc = np.zeros_like(self._offsets)
        slopes = matches.differences.clip(-1, 1) if s.smooth else matches.differences
        to_loc[matches.images, matches.priors, matches.owners] = slopes * matches.slopes * scale_loc
        to_conf = np.zeros_like(self._scores)
        losses, slopes = self._of_scores(self._scores[counted], self._targets(matches)[counted])
        to_conf[counted] = slopes * scale_conf
        # A loss that is not wanted must not count if it is not a number either.
        total = 0.0
        if scale_loc:
            total += scale_loc * self._of_offsets(matches).sum()
        if scale_conf:
            total += scale_conf * losses.sum()
        return np.array(total), to_loc, to_conf

    def _matched(self) -> tuple[Indices, Array]:
        """For each image, owner and prior the index of its object (N, O, P); each prior's largest overlap (N, P)."""
        s, objects = self._settings, self._objects
        indices: Indices = np.full((s.images, s.owners, s.priors), UNMATCHED, np.int64)
        largest: Array = np.zeros((s.images, s.priors), np.float32)
        of_priors = self._overlaps(self._boxes, slice(None)) if s.matches_priors else None
        for image in np.unique(objects.images):
            here = np.flatnonzero(objects.images == image)
            if of_priors is not None:
                found, largest[image] = self._match(self._boxes, of_priors[:, here], here)
                for owner in self._owning():
                    owned = (found >= 0) & (objects.labels[found.clip(0)] == owner)
                    indices[image, owner] = found if s.shared else np.where(owned, found, UNMATCHED)
                continue
            for owner in self._owning():
                there = here if s.shared else here[objects.labels[here] == owner]
                if len(there):
                    boxes = self._decoded(image, owner)
                    matches = self._match(boxes, self._overlaps(boxes, there), there)
                    indices[image, owner], largest[image] = matches
        return indices, largest

    def _owning(self) -> list[int]:
        """The classes that have boxes of their own; one if they are shared."""
        s = self._settings
        return [0] if s.shared else [label for label in range(s.classes) if label != s.background]

    def _overlaps(self, boxes: AnyArray, objects: Indices | slice) -> Array:
        corners = self._objects.corners[objects]
        return positive_overlaps(Boxes.of(boxes.astype(np.float32)), Boxes.of(corners))

    def _match(self, boxes: AnyArray, overlaps: Array, objects: Indices) -> tuple[Indices, Array]:
        """The index of the object of each box, and each box's largest overlap, 0 for ignored ones."""
        crossing = ((boxes < 0) | (boxes > 1)).any(axis=1)
        ignored = np.asarray(crossing & self._settings.ignores_crossing)
        found = matched(overlaps, self._settings.threshold, ignored)
        indices = np.where(found >= 0, objects[found.clip(0)], found)
        return indices, np.where(ignored, np.float32(0), overlaps.max(axis=1))

    def _decoded(self, image: int, owner: int) -> AnyArray:
        """The predicted boxes (P, 4)."""
        offsets = self._offsets[image, :, owner]
        scaled = offsets if self._settings.variance_in_target else offsets * self._variances
        return decoded(scaled, self._boxes, self._settings.code)

    def _matches(self, indices: Indices) -> _Matches:
        s = self._settings
        images, owners, priors = np.nonzero(indices >= 0)
        objects = indices[images, owners, priors]
        boxes, variances = self._boxes[priors], self._variances[priors]
        offsets = self._offsets[images, priors, owners]
        if not (variances > 0).all():
            raise LayerError("a prior box with a variance that is not positive matches an object")
        targets = encoded(self._objects.corners[objects].astype(np.float64), boxes, s.code)
        if s.variance_in_target:
            differences, slopes = (offsets - targets) / variances, 1 / variances
        else:
            differences, slopes = offsets - targets / variances, np.ones_like(offsets)
        if s.bp_inside:
            scaled = offsets if s.variance_in_target else offsets * variances
            seen = boxes if s.matches_priors else decoded(scaled, boxes, s.code)
            outside = (seen < 0) | (seen > 1)
            differences, slopes = (np.where(outside, 0, part) for part in (differences, slopes))
        return _Matches(images, owners, priors, objects, differences, slopes)

    def _mined(self, indices: Indices, overlaps: Array, matches: _Matches) -> AnyArray:
        """The priors that mining chooses, (N, P). indices, overlaps: of the priors' objects, (N, P)."""
        s = self._settings
        losses, _ = self._of_scores(self._scores, self._targets(matches, mining=True))
        if s.mining == "HARD_EXAMPLE":
            losses[matches.images, matches.priors] += self._of_offsets(matches)
        chosen = np.zeros((s.images, s.priors), np.bool_)
        for image in np.unique(self._objects.images):
            if s.mining == "HARD_EXAMPLE":
                eligible = np.arange(s.priors)
                most = s.samples
            else:
                eligible = np.flatnonzero(
                    (indices[image] == UNMATCHED) & (overlaps[image] < np.float32(s.negative_overlap))
                )
                most = int(np.float32((indices[image] >= 0).sum()) * np.float32(s.ratio))
            order = eligible[np.argsort(-losses[image, eligible], kind="stable")]
            if s.max_overlap is not None:
                order = order[: s.top_k]
                boxes = self._boxes if s.suppresses_priors else self._decoded(image, 0)
                order = order[suppressed(boxes[order].astype(np.float32), s.max_overlap, most)]
            chosen[image, order[:most]] = True
        return chosen

    def _targets(self, matches: _Matches, *, mining: bool = False) -> AnyArray:
        """The wanted values of the scores, 1 or 0, (N, P, C).

        The value of the background is 1 for priors without an object. But with LOGISTIC and without mining, all values
        of such a prior are 0, as in SSD.
        """
        s = self._settings
        targets = np.zeros_like(self._scores)
        labels = self._objects.labels[matches.objects]
        if s.background < s.classes and (mining or s.mining != "NONE" or not s.logistic):
            targets[..., s.background] = 1
            targets[matches.images, matches.priors, s.background] = 0
        if not s.logistic:  # one class for each prior, the last that owns it
            targets[matches.images, matches.priors] = np.eye(s.classes)[labels]
        else:
            targets[matches.images, matches.priors, labels] = 1
        return targets

    def _of_scores(self, scores: AnyArray, targets: AnyArray) -> tuple[AnyArray, AnyArray]:
        """The loss of each prior's scores (..., C) to (...,), and its derivative by each score (..., C)."""
        if self._settings.logistic:
            # log(1 + exp(x)) - target x
            losses = np.maximum(scores, 0) + np.log1p(np.exp(-np.abs(scores))) - targets * scores
            return losses.sum(-1), 0.5 * (1 + np.tanh(0.5 * scores)) - targets
        shifted = scores - scores.max(-1, keepdims=True)
        powers = np.exp(shifted)
        sums = powers.sum(-1, keepdims=True)
        logarithms = np.maximum((targets * (shifted - np.log(sums))).sum(-1), np.log(_TINY))
        return -logarithms, powers / sums - targets

    def _of_offsets(self, matches: _Matches) -> AnyArray:
        """The loss of each match's offsets (K,)."""
        size = np.abs(matches.differences)
        squares = 0.5 * size**2
        losses: AnyArray = np.where(size < 1, squares, size - 0.5) if self._settings.smooth else squares
        return np.asarray(losses.sum(1))
