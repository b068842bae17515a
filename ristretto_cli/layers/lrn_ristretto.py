"""LRNRistretto: local response normalization with minifloat intermediate results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V

_MAX_CHANNELS = 512  # each takes several nodes, and preparation in onnxruntime grows with the cube of their number


@layer_type("LRNRistretto")
class LRNRistretto(LayerType):
    """x (N, C, H, W) times (k + alpha / size * sum of squares over size channels) ^ -beta, in minifloat throughout.

    The sum slides along the channels, adding one square and subtracting one at each step, with rounding: another
    order of summation would give other roundings.
    """

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        lrn = layer.message.lrn_param
        quantization = layer.message.quantization_param
        if enum_name(quantization, "precision") != "MINIFLOAT":
            raise LayerError("it supports only minifloat", hint="Set quantization_param { precision: MINIFLOAT }.")
        if enum_name(lrn, "norm_region") != "ACROSS_CHANNELS":
            raise LayerError("it supports only normalization across channels")
        if lrn.local_size % 2 == 0:
            raise LayerError(f"local_size must be odd, not {lrn.local_size}")
        if len(x.shape) != 4:
            raise LayerError(f"its bottom has {len(x.shape)} axes and must have 4: (N, C, H, W)")
        if x.shape[1] > _MAX_CHANNELS:
            raise LayerError(f"its bottom has {x.shape[1]} channels; the maximum is {_MAX_CHANNELS}")
        number_format = Minifloat(quantization.mant_bits, quantization.exp_bits)

        def trim(value: V) -> V:
            return number_format.quantize(ops, value, Rounding.NEAREST)

        x = trim(x)
        sums = _sliding_sums(ops, trim, trim(ops.mul(x, x)), lrn.local_size)
        factor = ops.constant(np.float32(np.float32(lrn.alpha) / np.float32(lrn.local_size)))
        scale = trim(ops.add(ops.constant(lrn.k), trim(ops.mul(sums, factor))))
        return [trim(ops.mul(x, trim(ops.pow(scale, ops.constant(-lrn.beta)))))]


def _sliding_sums(ops: Ops[V], trim: Callable[[V], V], squares: V, size: int) -> V:
    """For each channel the sum of `squares` over the size channels around it."""
    channels = squares.shape[1]
    after = (size - 1) // 2
    square = [ops.slice(squares, 1, c, c + 1) for c in range(channels)]
    total = ops.mul(square[0], ops.constant(0.0))
    sums = []
    # If the window is wider than the blob, there is no step between the last channel and the first sum.
    for head in (*range(min(after, channels)), *range(after, channels + after)):
        if head < channels:
            total = trim(ops.add(total, square[head]))
        if head >= size:
            total = trim(ops.sub(total, square[head - size]))
        if head >= after:
            sums.append(total)
    return ops.concat(sums, 1)
