"""Remedies for fields of forks that are not in the schema, because the layers do not compute what they mean."""

from __future__ import annotations

_OPERATIONS = "It simulates single operations in IVS-Caffe: remove it, and use ConvolutionRistretto or FcRistretto."
_TRAINING = "It is for training in Intel's fork: remove it."

_REMEDIES = {
    "BatchNormParameter": dict.fromkeys(
        ("filler", "bias_filler", "use_weight_bias", "bias_term"),
        "Intel's BatchNorm also scales and shifts: use BatchNorm, followed by Scale { bias_term: true }.",
    ),
    "ConcatParameter": {
        "per_fla_fuse": "Intel's Concat also permutes and flattens: use Permute and Flatten in front of a Concat."
    },
    "NetParameter": {"bn_stats_batch_size": _TRAINING},
    "QuantizationParameter": dict.fromkeys(
        ("bw_add", "bw_multiply", "fl_add", "fl_multiply", "rounding_time", "overflow_behavior", "analyze_mode"),
        _OPERATIONS,
    ),
    "TransformationParameter": {
        "random_aspect_ratio_param": _TRAINING,
        "random_resize_param": "Intel's fork resizes images with it: remove it, and resize them in the database.",
    },
}


def remedy(message: str, field: str) -> str:
    """The remedy for an unknown field of a message; empty if no fork is known to have it."""
    return _REMEDIES.get(message, {}).get(field, "")
