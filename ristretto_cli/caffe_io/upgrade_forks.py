"""Upgrade of nets of forks of Ristretto, and of its own versions before the first release."""

from __future__ import annotations

from ristretto_cli.caffe_io.messages import Message, enum_name, enum_value

_PRECISIONS = {
    "FIXED_POINT": "DYNAMIC_FIXED_POINT",
    "MINI_FLOATING_POINT": "MINIFLOAT",
    "POWER_2_WEIGHTS": "INTEGER_POWER_OF_2_WEIGHTS",
}
# Of the fork that trims layers of ordinary types where is_quantized is set: the types that it trims.
_TRIMMED = {
    "BatchNorm": "BatchNormRistretto",
    "Concat": "ConcatRistretto",
    "Convolution": "ConvolutionRistretto",
    "Deconvolution": "DeconvolutionRistretto",
    "Eltwise": "EltwiseRistretto",
    "InnerProduct": "FcRistretto",
    "Pooling": "PoolingRistretto",
    "ReLU": "ReLURistretto",
    "Scale": "ScaleRistretto",
}


def has_old_precisions(net: Message) -> bool:
    """Whether a layer has a precision by its old name."""
    return any(_old_precision(layer) for layer in net.layer)


def upgrade_precisions(net: Message) -> None:
    """Give the precisions of a net their present names."""
    for layer in net.layer:
        if _old_precision(layer):
            name = _PRECISIONS[enum_name(layer.quantization_param, "precision")]
            layer.quantization_param.precision = enum_value("QuantizationParameter.Precision", name)


def has_quantized_flags(net: Message) -> bool:
    """Whether is_quantized says of a layer of an ordinary type that it is trimmed."""
    return any(_is_flagged(layer) for layer in net.layer)


def upgrade_quantized_flags(net: Message) -> None:
    """Give the layers that is_quantized is set for the trimmed type."""
    for layer in net.layer:
        if _is_flagged(layer):
            layer.type = _TRIMMED[layer.type]


def _old_precision(layer: Message) -> bool:
    return layer.HasField("quantization_param") and enum_name(layer.quantization_param, "precision") in _PRECISIONS


def _is_flagged(layer: Message) -> bool:
    return bool(layer.type in _TRIMMED and layer.quantization_param.is_quantized)
