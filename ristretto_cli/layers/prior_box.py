"""PriorBox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array, Ops, Shape, V, show

# Real nets have some ten thousand. All of them become constants of the graph.
MAX_BOXES = 2**22
MAX_RATIOS = 1000
SAME_RATIO = 1e-6


@layer_type("PriorBox")
class PriorBox(LayerType):
    """SSD's prior boxes around each position of a map, relative to the image; constants, as only shapes matter.

    Bottoms: the map and the image, both (N, C, H, W). Top: (1, 2, boxes * 4). Row 0 has left, top, right and bottom of
    each box, row 1 the four variances. At each position, for each min_size: a square of that size, one of
    sqrt(min_size max_size) if there are max_sizes, and a box for each other aspect_ratio (and its inverse, with
    flip). Sizes are truncated to integers, as in SSD.
    """

    bottoms = (2, 2)
    without_gradient = (0, 1)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        for blob in bottoms:
            if len(blob.shape) != 4:
                raise LayerError(f"its bottom has shape {show(blob.shape)}; expected 4 axes: (N, C, H, W)")
        param = layer.message.prior_box_param
        grid = _Grid.of(param, bottoms[0].shape, bottoms[1].shape)
        sizes = _sizes(param)
        variance = _variance(param)
        count = len(sizes) * grid.height * grid.width
        _reject_many(count)
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = grid.boxes(sizes)
        if not np.isfinite(boxes).all():
            raise LayerError("its boxes exceed float32", hint="Check its steps and offset.")
        if param.clip:
            boxes = boxes.clip(0, 1)
        both = np.stack([boxes, np.broadcast_to(variance, boxes.shape)])
        return [ops.constant(both.reshape(1, 2, count * 4))]


@dataclass(frozen=True)
class _Grid:
    """Positions on an image. height, width: their numbers; image: its height and width; step: their distance."""

    height: int
    width: int
    image: tuple[float, float]
    step: tuple[float, float]
    offset: float

    @classmethod
    def of(cls, param: Message, places: Shape, image: Shape) -> _Grid:
        if param.HasField("img_size") and (param.HasField("img_h") or param.HasField("img_w")):
            raise LayerError("img_size cannot be combined with img_h and img_w", hint="Use only one of them.")
        if param.HasField("step") and (param.HasField("step_h") or param.HasField("step_w")):
            raise LayerError("step cannot be combined with step_h and step_w", hint="Use only one of them.")
        height, width = (param.img_size,) * 2 if param.HasField("img_size") else (param.img_h, param.img_w)
        if height == 0 or width == 0:
            height, width = image[2:]
        down, across = (param.step,) * 2 if param.HasField("step") else (param.step_h, param.step_w)
        if not (0 <= down < inf and 0 <= across < inf):
            raise LayerError("steps must be 0 or more")
        if not isfinite(param.offset):
            raise LayerError(f"offset is {param.offset:g}")
        if down == 0 or across == 0:
            down, across = height / places[2], width / places[3]
        return cls(places[2], places[3], (float(height), float(width)), (down, across), param.offset)

    def boxes(self, sizes: Sequence[tuple[float, float]]) -> Array:
        """(height, width, sizes, 4); sizes: width and height of each box."""
        high, wide = (
            (np.arange(n, dtype=np.float32) + np.float32(self.offset)) * np.float32(step)
            for n, step in zip((self.height, self.width), self.step, strict=True)
        )
        centres = np.stack(np.broadcast_arrays(wide[None, :], high[:, None]), axis=-1).astype(np.float64)
        half = np.asarray(sizes, np.float32) / 2.0
        image = np.array(self.image[::-1])
        low = (centres[:, :, None] - half) / image
        return np.concatenate([low, (centres[:, :, None] + half) / image], axis=-1).astype(np.float32)


def _reject_many(count: int) -> None:
    if count > MAX_BOXES:
        raise LayerError(f"{count} boxes are too many; the maximum is {MAX_BOXES}")


def _sizes(param: Message) -> list[tuple[float, float]]:
    """Width and height of the boxes at each position."""
    if not param.min_size or any(not 1 <= size < 2**31 for size in param.min_size):
        raise LayerError("min_size is missing or less than 1", hint="Set the sizes of the boxes in pixels.")
    if param.max_size and len(param.max_size) != len(param.min_size):
        raise LayerError(f"there are {len(param.min_size)} min_sizes and {len(param.max_size)} max_sizes")
    if any(not low < high < 2**31 for low, high in zip(param.min_size, param.max_size, strict=False)):
        raise LayerError("each max_size must be larger than its min_size")
    if len(param.aspect_ratio) > MAX_RATIOS:
        raise LayerError(f"{len(param.aspect_ratio)} aspect_ratios are too many; the maximum is {MAX_RATIOS}")
    ratios = _ratios(param)
    _reject_many(len(param.min_size) * (1 + len(ratios)))
    sizes = []
    for i, size in enumerate(param.min_size):
        side = float(int(size))
        sizes.append((side, side))
        if param.max_size:
            between = (side * int(param.max_size[i])) ** 0.5
            sizes.append((between, between))
        sizes += [(side * ratio**0.5, side / ratio**0.5) for ratio in ratios]
    return sizes


def _ratios(param: Message) -> list[float]:
    """The aspect ratios other than 1, without duplicates."""
    ratios = [1.0]
    for ratio in param.aspect_ratio:
        if not 0 < ratio < inf:
            raise LayerError(f"aspect_ratio must be more than 0, not {ratio:g}")
        if all(abs(ratio - known) >= SAME_RATIO for known in ratios):
            ratios += [ratio, 1 / ratio] if param.flip else [ratio]
    return ratios[1:]


def _variance(param: Message) -> Array:
    given = list(param.variance) or [0.1]
    if len(given) not in (1, 4) or any(not 0 < value < inf for value in given):
        raise LayerError("variance must be 1 or 4 numbers, all more than 0")
    return np.array(given * (4 // len(given)), np.float32)
