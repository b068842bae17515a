"""The operations of detection and segmentation nets as ONNX nodes: boxes, regions, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from ristretto_cli.backends.onnx_graph import Tensor
from ristretto_cli.backends.onnx_pool import PoolNodes
from ristretto_cli.backends.shapes import ShapeOps, Sized
from ristretto_cli.ops import Shape

_SHAPES = ShapeOps()


class RegionNodes(PoolNodes):
    """The primitives of OnnxOps on boxes, and those that change the size of planes."""

    def resize(self, x: Tensor, extent: Sequence[int]) -> Tensor:
        shape = _SHAPES.resize(x, extent)
        return self.graph.record(
            "Resize",
            [x, None, None, self._ints(shape.shape)],
            [shape.shape],
            mode="linear",
            coordinate_transformation_mode="align_corners",
        )[0]

    def unpool(self, x: Tensor, places: Tensor, extent: Sequence[int]) -> Tensor:
        shape = _SHAPES.unpool(x, places, extent).shape
        cells = math.prod(extent)
        # Values without a place go to one more cell, which is cut off.
        count = self.graph.constant(np.float32(cells))
        low = self._one("GreaterOrEqual", [places, self.graph.constant(np.float32(0))], places)
        high = self._one("Less", [places, count], places)
        inside = self._one("And", [low, high], places)
        index = self._whole(self._one("Where", [inside, places, count], places))
        flat = (*x.shape[:2], math.prod(x.shape[2:]))
        plane = (*x.shape[:2], cells + 1)
        empty = self._one("Expand", [self.graph.constant(np.float32(0)), self._ints(plane)], Sized(plane))
        operands = [empty, self._reshaped(index, flat), self._reshaped(x, flat)]
        filled = self._one("ScatterElements", operands, Sized(plane), axis=2)
        bounds = [self._ints([0]), self._ints([cells]), self._ints([2])]
        return self._reshaped(self._one("Slice", [filled, *bounds], Sized((*x.shape[:2], cells))), shape)

    def roi_pool(self, x: Tensor, rois: Tensor, *, extent: Sequence[int], spatial_scale: float) -> Tensor:
        shape = _SHAPES.roi_pool(x, rois, extent=extent, spatial_scale=spatial_scale)
        return self._one("MaxRoiPool", [x, rois], shape, pooled_shape=list(extent), spatial_scale=float(spatial_scale))

    def nms(
        self, boxes: Tensor, scores: Tensor, *, top_k: int, min_score: float, max_overlap: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = _SHAPES.nms(boxes, scores, top_k=top_k, min_score=min_score, max_overlap=max_overlap)
        shape = found[0].shape
        batch, classes, count = shape
        best, places = self.graph.record("TopK", [scores, self._ints([count])], [shape, shape], axis=2, sorted=1)
        lists = batch * classes  # one for each image and class

        corners = self._one(
            "Expand", [boxes, self._ints((batch, classes, *boxes.shape[2:]))], Sized((*shape[:2], *boxes.shape[2:]))
        )
        corners = self._reshaped(corners, (lists, *boxes.shape[2:]))
        which = self._reshaped(places, (lists, count, 1))
        which = self._one("Expand", [which, self._ints((lists, count, 4))], Sized((lists, count, 4)))
        corners = self._one("GatherElements", [corners, which], Sized((lists, count, 4)), axis=1)
        # NonMaxSuppression swaps corners that are the wrong way round; without an area a box overlaps nothing.
        low, high = self.graph.record("Split", [corners], [(lists, count, 2)] * 2, axis=2, num_outputs=2)
        corners = self._one("Concat", [low, self._one("Max", [low, high], low)], corners, axis=2)

        # The result is a list of (list, 0, place among the best), as long as it happens to be.
        # Nothing overlaps by more than 1, and NonMaxSuppression takes no larger number.
        settings = [self._ints([count]), *(self._number(n) for n in (min(max_overlap, 1.0), min_score))]
        scored = self._reshaped(best, (lists, 1, count))
        kept = self._one("NonMaxSuppression", [corners, scored, *settings], Sized((0, 3)))
        length = self._one("Shape", [kept], Sized((1,)), start=0, end=1)
        ones = self._one("Expand", [self._number(1), length], Sized((0,)))
        none = self._one("Expand", [self.graph.constant(np.float32(0)), self._ints((lists, 1, count))], scored)
        marks = self._one("ScatterND", [none, kept, ones], scored)
        index = self._one("Cast", [places], found[1], to=TensorProto.FLOAT)
        return best, index, self._reshaped(marks, shape)

    def _number(self, number: float) -> Tensor:
        return self.graph.constant(np.array([number], np.float32))

    def _reshaped(self, x: Tensor, shape: Shape) -> Tensor:
        return self._one("Reshape", [x, self._ints(shape)], Sized(shape))

    def _whole(self, x: Tensor) -> Tensor:
        return self._one("Cast", [x], x, to=TensorProto.INT64)
