"""BatchNorm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod

import numpy as np

from ristretto_cli.caffe_io.messages import TEST, Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import ChannelAffine, LayerType, constant_filler, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import AnyArray, Array, Ops, Shape, V, show


@layer_type("BatchNorm")
class BatchNorm(LayerType):
    """(x - mean) / sqrt(variance + eps) for each channel. x (N, C, ...).

    Parameters: running sums of means (C,) and of variances (C,), and the factor (1,) by which both are
    divided; a factor of 0 makes both 0. With use_global_stats (default in TEST) mean and variance are these.
    Without it, they are the batch's, and the running sums are updated, in TEST too.
    """

    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        (shape,) = bottoms
        if len(shape) < 2:
            raise LayerError(
                f"the bottom has shape {show(shape)}, but BatchNorm needs a channel axis after the first",
                hint="Use a bottom with at least 2 axes.",
            )
        if any(param.lr_mult != 0 for param in message.param[:3]):
            raise LayerError(
                "the statistics of BatchNorm have a learning rate, but are not trained",
                hint="Set lr_mult: 0 in each param block, or remove the blocks.",
            )
        return tuple(ParamDef((extent,), constant_filler()) for extent in (shape[1], shape[1], 1))

    def statistics(self, message: Message) -> Collection[int]:
        return range(3)

    def stale_fraction(self, layer: Layer, params: Sequence[Array], passes: int) -> float:
        fraction = float(layer.message.batch_norm_param.moving_average_fraction)
        return 0.0 if uses_stored(layer) else remaining_fraction(float(params[2].item()), fraction, passes)

    def channel_affine(self, layer: Layer, params: Sequence[Array]) -> ChannelAffine:
        if not uses_stored(layer):
            raise LayerError("it normalizes by the statistics of each batch")
        mean, variance = stored_statistics(params)
        return normalization(mean, variance, layer.message.batch_norm_param.eps, axis=1)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        if uses_stored(layer):
            mean, variance = divided(ops, x, params)
            eps = ops.constant(layer.message.batch_norm_param.eps)
            return [ops.div(ops.sub(x, mean), ops.sqrt(ops.add(variance, eps)))]
        return [ops.standardize(x, layer.message.batch_norm_param.eps)[0]]

    def forward_and_updates(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]
    ) -> tuple[Sequence[V], Mapping[int, V]]:
        if uses_stored(layer):
            return self.forward(ops, layer, bottoms, params), {}
        (x,) = bottoms
        top, mean, variance = ops.standardize(x, layer.message.batch_norm_param.eps)
        return [top], _moved(ops, layer, x, mean, variance, params)


def stored_statistics(params: Sequence[Array]) -> tuple[AnyArray, AnyArray]:
    """The stored mean and variance, float64 (C,), from the three parameters."""
    means, variances, factor = (np.asarray(param, np.float64).ravel() for param in params)
    weight = 0.0 if factor.item() == 0 else 1 / factor.item()
    return means * weight, variances * weight


def normalization(mean: AnyArray, variance: AnyArray, eps: float, *, axis: int) -> ChannelAffine:
    """(x - mean) / sqrt(variance + eps) for each channel. LayerError if that is not a number."""
    if not (variance + eps > 0).all():
        raise LayerError("a variance plus eps is not positive")
    scale = 1 / np.sqrt(variance + eps)
    return ChannelAffine(axis, scale, -mean * scale)


def remaining_fraction(factor: float, fraction: float, passes: int) -> float:
    """The fraction of the running sums, now divided by `factor`, that remains after this many passes.

    >>> round(remaining_fraction(factor=1000.0, fraction=0.999, passes=300), 2)
    0.74
    """
    if fraction == 1:
        new = float(passes)
    elif fraction > 1:  # both parts then, divided by the same huge number
        new = (1 - fraction**-passes) / (fraction - 1)
    else:
        factor *= fraction**passes
        new = (1 - fraction**passes) / (1 - fraction)
    return factor / (factor + new) if factor + new > 0 else 0.0


def _moved(ops: Ops[V], layer: Layer, x: V, mean: V, variance: V, params: Sequence[V]) -> dict[int, V]:
    """The parameters, updated with the mean and the variance of a batch x."""
    channels = x.shape[1]
    values = prod(x.shape) // channels
    mean, variance = (ops.reshape(statistic, (channels,)) for statistic in (mean, variance))
    if values > 1:
        # The stored value estimates the variance of all data (unbiased), not of this batch.
        variance = ops.mul(variance, ops.constant(values / (values - 1)))
    fraction = ops.constant(layer.message.batch_norm_param.moving_average_fraction)
    news = (mean, variance, ops.constant(1.0))
    return {
        index: ops.add(ops.mul(old, fraction), new) for index, (old, new) in enumerate(zip(params, news, strict=True))
    }


def uses_stored(layer: Layer) -> bool:
    """Whether a BatchNorm normalizes by its stored statistics."""
    param = layer.message.batch_norm_param
    if param.HasField("use_global_stats"):
        return bool(param.use_global_stats)
    return layer.phase == TEST


def divided(ops: Ops[V], x: V, params: Sequence[V]) -> tuple[V, V]:
    """The stored mean and variance, (C, 1, ...)."""
    means, variances, factor = params
    zero, one = ops.constant(0.0), ops.constant(1.0)
    empty = ops.equal(factor, zero)
    weight = ops.where(empty, zero, ops.div(one, ops.where(empty, one, factor)))
    shape = (x.shape[1], *(1 for _ in x.shape[2:]))
    return ops.reshape(ops.mul(means, weight), shape), ops.reshape(ops.mul(variances, weight), shape)
