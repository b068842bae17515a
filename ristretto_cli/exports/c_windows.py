"""Windows of convolutions and poolings in C."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ristretto_cli.integers.program import Place
from ristretto_cli.ops import Shape


@dataclass(frozen=True)
class Window:
    """Windows over the spatial axes of x; strides: of x, in elements, for each axis."""

    extent: Shape
    ends: Shape
    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape
    strides: Shape

    @classmethod
    def of(cls, x: Place, y: Place, kernel: Shape, geometry: Any) -> Window:
        dilation = getattr(geometry, "dilation", (1,) * len(kernel))
        extent = x.shape[1:]
        return cls(extent, y.shape[1:], tuple(kernel), geometry.stride, geometry.pad, dilation, strides_of(extent))

    @property
    def loops(self) -> list[tuple[str, int]]:
        """Over the windows."""
        return [(f"p{a}", n) for a, n in enumerate(self.ends)]

    @property
    def position(self) -> str:
        """The index of a window among those of a channel."""
        return " + ".join(by(f"p{a}", n) for a, n in enumerate(strides_of(self.ends)))

    def start(self, axis: int) -> str:
        """Where a window starts; negative in the padding."""
        found = by(f"p{axis}", self.stride[axis])
        return f"{found} - {self.pad[axis]}" if self.pad[axis] else found


def by(name: str, factor: int) -> str:
    """The C expression of an index times its stride."""
    return name if factor == 1 else f"{name} * {factor}"


def strides_of(shape: Shape) -> Shape:
    """The distance of neighbours on each axis, in elements."""
    return tuple(math.prod(shape[a + 1 :]) for a in range(len(shape)))
