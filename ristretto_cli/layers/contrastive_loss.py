"""ContrastiveLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.labels import Predictions, whole
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.losses import check_at_most_four_axes, check_one_per_row, check_same_batch
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, Shape, V, show

_DISTANCE_EPS = 1e-4  # in gradients


@layer_type("ContrastiveLoss")
class ContrastiveLoss(LayerType):
    """Contrastive loss of pairs that should be similar or at least a margin apart. a, b (N, C) and N flags to ().

    The sum over the pairs of d^2 where the flag, truncated to an integer, is not 0, otherwise of
    max(margin - d, 0)^2, or max(margin - d^2, 0) with legacy_version, divided by 2 N; d is the distance of the pair.
    """

    bottoms = (3, 3)
    is_loss = True
    without_gradient = (2,)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        a, b, similar = bottoms
        check_same_batch(a.shape, b.shape)
        check_at_most_four_axes(a.shape, b.shape, similar.shape)
        _check_vectors(a.shape, b.shape)
        rows = a.shape[0]
        check_one_per_row(similar.shape, rows, "similarity flags")
        param = layer.message.contrastive_loss_param
        flat = (rows, math.prod(a.shape[1:]))
        zero, margin = ops.constant(0.0), ops.constant(param.margin)

        difference = ops.sub(ops.reshape(a, flat), ops.reshape(b, flat))
        squared = ops.sum(ops.mul(difference, difference), [1])
        if param.legacy_version:
            apart = ops.relu(ops.sub(margin, squared))
        else:
            distance = ops.sqrt(squared)
            # Caffe adds an epsilon to the distance, which may be 0.
            steepness = ops.detach(ops.add(distance, ops.add(distance, ops.constant(2 * _DISTANCE_EPS))))
            distance = ops.straight_through(ops.div(squared, steepness), distance)
            short = ops.relu(ops.sub(margin, distance))
            apart = ops.mul(short, short)
        flag = ops.reshape(whole(ops, similar, Predictions(rows, 1, 1)), (rows, 1))
        losses = ops.where(ops.equal(flag, zero), apart, squared)
        return [ops.reshape(ops.div(ops.sum(losses, [0, 1]), ops.constant(2.0 * rows)), ())]


def _check_vectors(a: Shape, b: Shape) -> None:
    """LayerError unless both are (N, C), followed only by extents of 1."""
    if any(math.prod(shape[2:]) != 1 for shape in (a, b)) or math.prod(a[1:]) != math.prod(b[1:]):
        raise LayerError(
            f"bottoms of shape {show(a)} and {show(b)} are not vectors of the same length",
            hint="Use two of shape N x C.",
        )
