"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.layers.stochastic_pooling import draw, expect
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, Shape, V
from ristretto_cli.wire.messages import TRAIN, Message, enum_name


@layer_type("Pooling")
class Pooling(LayerType):
    """The largest value, the mean, or a value drawn from each window of (N, C, H, W).

    With MAX, a second top gets where in its plane each value stands. STOCHASTIC draws in proportion to the
    values in TRAIN, and gives what it would draw on average in TEST; the values should be 0 or more.
    """

    tops = (1, 2)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        window = _Window.of(layer.message.pooling_param, x.shape)
        method = enum_name(layer.message.pooling_param, "pool")
        if len(layer.tops) == 2:
            if method != "MAX":
                raise LayerError(f"it has 2 tops; with pool {method} it takes 1")
            return ops.max_pool_with_index(x, **window.settings())
        if method == "MAX":
            return [ops.max_pool(x, **window.settings())]
        if method == "AVE":
            return [ops.ave_pool(x, **window.settings())]
        if any(window.pad):
            raise LayerError("pad does not go with pool STOCHASTIC")
        if layer.phase == TRAIN:
            return [draw(ops, x, window.kernel, window.stride, window.ceil)]
        return [expect(ops, x, window.kernel, window.stride, window.ceil)]


@dataclass(frozen=True)
class _Window:
    """A PoolingParameter for a bottom, checked; a number for the height and one for the width."""

    kernel: Shape
    stride: Shape
    pad: Shape
    ceil: bool

    @classmethod
    def of(cls, param: Message, shape: Shape) -> _Window:
        if len(shape) != 4:
            raise LayerError(f"its bottom has {len(shape)} axes and must have 4: (N, C, H, W)")
        stride, pad = _pair(param, "stride", "stride"), _pair(param, "pad", "pad")
        if param.global_pooling:
            if any(param.HasField(field) for field in ("kernel_size", "kernel_h", "kernel_w")):
                raise LayerError("global_pooling goes without a kernel size", remedy="Remove one.")
            if stride != (1, 1) or pad != (0, 0):
                raise LayerError("global_pooling goes with stride 1 and pad 0 only")
            kernel: Shape = shape[2:]
        else:
            kernel = _pair(param, "kernel_size", "kernel")
            if min(kernel) < 1:
                raise LayerError("kernel_size is missing or 0", remedy="Set kernel_size, or kernel_h and kernel_w.")
        return cls(kernel, stride, pad, enum_name(param, "round_mode") == "CEIL")

    def settings(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "pad": self.pad, "ceil": self.ceil}


def _pair(param: Message, field: str, stem: str) -> tuple[int, int]:
    """A setting that is given for both axes, or as stem_h and stem_w."""
    sides = (f"{stem}_h", f"{stem}_w")
    given = [param.HasField(side) for side in sides]
    if not any(given):
        return (getattr(param, field), getattr(param, field))
    if not all(given) or param.HasField(field):
        raise LayerError(
            f"{field}, {sides[0]} and {sides[1]} do not go together", remedy=f"Give {field}, or both others."
        )
    return (getattr(param, sides[0]), getattr(param, sides[1]))
