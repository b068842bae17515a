"""BN."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ristretto_cli.caffe_io.messages import TRAIN, Message, enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.batch_norm import normalization
from ristretto_cli.layers.layer_type import ChannelAffine, LayerType, constant_filler, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Array, Ops, Shape, V, show

SEGNET_EPS = 1e-9


@layer_type("BN")
class BN(LayerType):
    """Batch normalization with scale and shift in one layer, in the variants of two forks. x (N, C, ...).

    SegNet and ENet: two parameters (1, C, 1, 1), scale and shift: x * scale + shift with bn_mode INFERENCE,
    otherwise of x normalized by the batch's statistics, in TEST too.
    PSPNet: four parameters, slope, bias, mean and variance: slope * (x - mean) / sqrt(variance + eps) + bias. In TRAIN
    the statistics are the batch's, and the stored ones become momentum * stored + (1 - momentum) * batch; with
    `frozen` the stored ones are used, and no parameter is trained. This variant is chosen if one of its
    settings (slope_filler, bias_filler, momentum, eps, frozen) or more than 2 param blocks are given.
    """

    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        (shape,) = bottoms
        if len(shape) < 2:
            raise LayerError(f"the bottom has shape {show(shape)}, but BN needs a channel axis after the first")
        param = message.bn_param
        fillers = [param.scale_filler, param.shift_filler]
        if _has_statistics(message):
            slope = param.slope_filler if param.HasField("slope_filler") else constant_filler(1.0)
            fillers = [slope, param.bias_filler, constant_filler(), constant_filler(1.0 if param.frozen else 0.0)]
        return tuple(ParamDef((1, shape[1], 1, 1), filler) for filler in fillers)

    def statistics(self, message: Message) -> Collection[int]:
        if not _has_statistics(message):
            return ()
        return range(4) if message.bn_param.frozen else (2, 3)

    def stale_fraction(self, layer: Layer, params: Sequence[Array], passes: int) -> float:
        moves = _has_statistics(layer.message) and not layer.message.bn_param.frozen
        return min(1.0, float(layer.message.bn_param.momentum)) ** passes if moves else 0.0

    def channel_affine(self, layer: Layer, params: Sequence[Array]) -> ChannelAffine:
        param = layer.message.bn_param
        scale, shift, *statistics = (np.asarray(each, np.float64).ravel() for each in params)
        if not statistics:
            if enum_name(param, "bn_mode") == "LEARN":
                raise LayerError("it normalizes by the statistics of each batch", hint="Set bn_mode: INFERENCE.")
            return ChannelAffine(1, scale, shift)
        if layer.phase == TRAIN and not param.frozen:
            raise LayerError("it normalizes by the statistics of each batch")
        mean, variance = statistics
        normal = normalization(mean, variance, param.eps, axis=1)
        return ChannelAffine(1, normal.scale * scale, normal.shift * scale + shift)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        return self.forward_and_updates(ops, layer, bottoms, params)[0]

    def forward_and_updates(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]
    ) -> tuple[Sequence[V], Mapping[int, V]]:
        (x,), param = bottoms, layer.message.bn_param
        moved: dict[int, V] = {}
        each = (1, x.shape[1], *(1 for _ in x.shape[2:]))
        scale, shift, *statistics = (ops.reshape(value, each) for value in params)
        if statistics:
            if layer.phase != TRAIN or param.frozen:
                mean, variance = statistics
                x = _normalized(ops, x, mean, variance, param.eps)
            else:
                x, *found = ops.standardize(x, param.eps)
                for i, (old, new) in enumerate(zip(params[2:], found, strict=True), 2):
                    moved[i] = _moved(ops, old, ops.reshape(new, old.shape), param.momentum)
        elif enum_name(param, "bn_mode") == "LEARN":
            x, _, _ = ops.standardize(x, SEGNET_EPS)
        return [ops.affine(x, scale, shift)], moved


def _has_statistics(message: Message) -> bool:
    own = ("slope_filler", "bias_filler", "momentum", "eps", "frozen")
    return len(message.param) > 2 or any(message.bn_param.HasField(field) for field in own)


def _moved(ops: Ops[V], old: V, new: V, momentum: float) -> V:
    return ops.add(ops.mul(old, ops.constant(momentum)), ops.mul(new, ops.constant(1 - momentum)))


def _normalized(ops: Ops[V], x: V, mean: V, variance: V, eps: float) -> V:
    return ops.div(ops.sub(x, mean), ops.sqrt(ops.add(variance, ops.constant(eps))))
