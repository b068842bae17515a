"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V


@layer_type("Dropout")
class Dropout(LayerType):
    """TEST: x. TRAIN: 0 with probability dropout_ratio, otherwise x / (1 - dropout_ratio), drawn in each run.

    With scale_train: false, as in Fast R-CNN, TRAIN does not divide; TEST multiplies by 1 - dropout_ratio.
    """

    in_place = True

    def keeps_elements(self, layer: Layer) -> bool:
        return layer.phase != TRAIN and bool(layer.message.dropout_param.scale_train)

    def keeps_factors(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        ratio = layer.message.dropout_param.dropout_ratio
        if not 0 <= ratio < 1:
            raise LayerError(f"dropout_ratio must be in [0, 1), not {ratio:g}")
        scaled = layer.message.dropout_param.scale_train
        if layer.phase != TRAIN:
            return [x if scaled else ops.mul(x, ops.constant(1 - ratio))]
        keep = ops.greater_equal(ops.uniform(x.shape), ops.constant(ratio))
        return [ops.mul(x, ops.where(keep, ops.constant(1 / (1 - ratio) if scaled else 1.0), ops.constant(0.0)))]
