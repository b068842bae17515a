"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.caffe_io.messages import TRAIN, Message, enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.filter_settings import one_sided
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.stochastic_pooling import draw, expect
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, PoolGeometry, Shape, V

LOWEST = float(np.finfo(np.float32).min)  # Caffe's -FLT_MAX


@layer_type("Pooling")
class Pooling(LayerType):
    """The maximum, the mean, or a random value of each window of (N, C, H, W).

    With MAX, a second top gets the index of each maximum in its plane. STOCHASTIC draws in proportion to the
    values in TRAIN, and gives the expected value in TEST; the values should be 0 or more. Forks have
    AVE_EXC_PAD, a mean that excludes the padding, and a padding for each side, which only MAX allows to
    differ.
    """

    tops = (1, 2)

    def keeps_elements(self, layer: Layer) -> bool:
        # The places of the maxima, a second top, depend on values that ReLU would drop.
        return enum_name(layer.message.pooling_param, "pool") == "MAX" and len(layer.tops) == 1

    def keeps_format(self, layer: Layer) -> bool:
        return True

    def keeps_factors(self, layer: Layer) -> bool:
        return len(layer.tops) == 1  # the second one has the places of maxima

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = layer.message.pooling_param
        method = enum_name(param, "pool")
        x = _bordered(ops, x, param, method)
        geometry = _geometry(param, x.shape)
        if len(layer.tops) == 2:
            if method != "MAX":
                raise LayerError(f"expected 1 top with pool {method}, got 2")
            return ops.max_pool_with_index(x, geometry)
        if method == "MAX":
            return [ops.max_pool(x, geometry)]
        if method == "AVE":
            return [ops.ave_pool(x, geometry)]
        if method == "AVE_EXC_PAD":
            # The mean of ones is the fraction of a window outside the padding.
            ones = ops.expand(ops.constant(1.0), (1, 1, *x.shape[2:]))
            return [ops.div(ops.ave_pool(x, geometry), ops.ave_pool(ones, geometry))]
        if any(geometry.pad):
            raise LayerError("pool STOCHASTIC does not support pad")
        if layer.phase == TRAIN:
            return [draw(ops, x, geometry)]
        return [expect(ops, x, geometry)]


def _geometry(param: Message, shape: Shape) -> PoolGeometry:
    """A PoolingParameter for a bottom, checked."""
    if len(shape) != 4:
        raise LayerError(f"its bottom has {len(shape)} axes and must have 4: (N, C, H, W)")
    stride, sides = _pair(param, "stride", "stride"), one_sided(param)
    pad = _pair(param, "pad", "pad") if sides is None else _shared(*sides)
    if param.global_pooling:
        if any(param.HasField(field) for field in ("kernel_size", "kernel_h", "kernel_w")):
            raise LayerError("global_pooling excludes a kernel size", hint="Remove one.")
        if stride != (1, 1) or pad != (0, 0):
            raise LayerError("global_pooling requires stride 1 and pad 0")
        kernel: Shape = shape[2:]
    else:
        kernel = _pair(param, "kernel_size", "kernel")
        if min(kernel) < 1:
            raise LayerError("kernel_size is missing or 0", hint="Set kernel_size, or kernel_h and kernel_w.")
    return PoolGeometry(kernel, stride, pad, enum_name(param, "round_mode") == "CEIL" and param.ceil_mode)


def _shared(before: Shape, after: Shape) -> Shape:
    """The padding of both sides; where they differ, `_bordered` has made it."""
    return before if before == after else (0, 0)


def _bordered(ops: Ops[V], x: V, param: Message, method: str) -> V:
    """The bottom with its padding, if that differs between sides."""
    sides = one_sided(param)
    if sides is None:
        return x
    if any(param.HasField(field) for field in ("pad", "pad_h", "pad_w")):
        raise LayerError("pad_l, pad_r, pad_t and pad_b exclude other pad settings", hint="Use only one of them.")
    before, after = sides
    if before == after:
        return x
    if method != "MAX" or len(x.shape) != 4:
        raise LayerError(f"pool {method} requires equal padding on both sides", hint="Set pad, or pad_h and pad_w.")
    return ops.pad(x, [0, 0, *before], [0, 0, *after], LOWEST)


def _pair(param: Message, field: str, stem: str) -> tuple[int, int]:
    """A setting that is given for both axes, or as stem_h and stem_w."""
    sides = (f"{stem}_h", f"{stem}_w")
    given = [param.HasField(side) for side in sides]
    if not any(given):
        return (getattr(param, field), getattr(param, field))
    if not all(given) or param.HasField(field):
        raise LayerError(
            f"{field} cannot be combined with {sides[0]} and {sides[1]}", hint=f"Set {field}, or both of the others."
        )
    return (getattr(param, sides[0]), getattr(param, sides[1]))
