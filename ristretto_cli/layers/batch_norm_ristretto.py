"""BatchNormRistretto."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.number_format import LayerFormats, NumberFormat, Rounding
from ristretto_cli.layers.batch_norm import BatchNorm, divided, uses_stored
from ristretto_cli.layers.layer_type import ChannelAffine, layer_type
from ristretto_cli.layers.trimmed import Trimmed
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array, Ops, V


@dataclass(frozen=True)
class _Formats:
    """The formats of the statistics; None: not quantized.

    factor: of the number that divides both running sums. deviation: of the square root of variance + eps.
    """

    factor: NumberFormat | None = None
    mean: NumberFormat | None = None
    variance: NumberFormat | None = None
    deviation: NumberFormat | None = None


@layer_type("BatchNormRistretto")
class BatchNormRistretto(Trimmed, BatchNorm):
    """A BatchNorm by stored statistics whose bottom, statistics and top are quantized.

    The formats of the statistics depend on the fork: bw_mean, bw_var and bw_mov with their fl_* are those of the mean,
    the variance and the factor; batchnorm_mean_* and batchnorm_variance_* those of the mean and the standard deviation,
    and then the top is not quantized. Otherwise bw_params and fl_params are for the mean, the variance, and again for
    the standard deviation.
    """

    def formats(self, message: Message) -> LayerFormats:
        formats = replace(super().formats(message), weights=None, bias=None)  # `forward` quantizes them
        has_top_format = not any(message.quantization_param.HasField(name) for name in _DEVIATION_FIELDS)
        return formats if has_top_format else replace(formats, layer_out=None)

    def channel_affine(self, layer: Layer, params: Sequence[Array]) -> ChannelAffine:
        raise LayerError("its values are trimmed")

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        if not uses_stored(layer):
            raise LayerError(
                "it quantizes only stored statistics, not those of a batch",
                hint="Set batch_norm_param { use_global_stats: true }, or use type BatchNorm.",
            )
        formats = super().formats(layer.message)
        rounding, of = formats.rounding, _statistics_formats(layer.message.quantization_param, formats)
        (x,) = bottoms
        means, variances, factor = params
        mean, variance = divided(ops, x, (means, variances, _trimmed(ops, factor, of.factor, rounding)))
        mean = _trimmed(ops, mean, of.mean, rounding)
        variance = _trimmed(ops, variance, of.variance, rounding)
        eps = ops.constant(layer.message.batch_norm_param.eps)
        deviation = _trimmed(ops, ops.sqrt(ops.add(variance, eps)), of.deviation, rounding)
        return [ops.div(ops.sub(x, mean), deviation)]


_VARIANCE_FIELDS = ("bw_mean", "bw_var", "bw_mov", "fl_mean", "fl_var", "fl_mov")
_DEVIATION_FIELDS = (
    "batchnorm_mean_bw",
    "batchnorm_mean_fl",
    "batchnorm_variance_bw",
    "batchnorm_variance_fl",
)


def _statistics_formats(quantization: Message, formats: LayerFormats) -> _Formats:
    given = [
        names for names in (_VARIANCE_FIELDS, _DEVIATION_FIELDS) if any(quantization.HasField(name) for name in names)
    ]
    if len(given) > 1:
        raise LayerError(
            "bw_mean and batchnorm_mean_bw are fields of different forks",
            hint="Use the fields of one of them.",
        )
    if not quantization.trim_params:
        return _Formats()
    if given == [_VARIANCE_FIELDS]:
        return _Formats(
            factor=Fixed(quantization.bw_mov, quantization.fl_mov),
            mean=Fixed(quantization.bw_mean, quantization.fl_mean),
            variance=Fixed(quantization.bw_var, quantization.fl_var),
        )
    if given == [_DEVIATION_FIELDS]:
        return _Formats(
            mean=Fixed(quantization.batchnorm_mean_bw, quantization.batchnorm_mean_fl),
            deviation=Fixed(quantization.batchnorm_variance_bw, quantization.batchnorm_variance_fl),
        )
    return _Formats(mean=formats.weights, variance=formats.weights, deviation=formats.weights)


def _trimmed(ops: Ops[V], value: V, number_format: NumberFormat | None, rounding: Rounding) -> V:
    return value if number_format is None else number_format.quantize(ops, value, rounding)
